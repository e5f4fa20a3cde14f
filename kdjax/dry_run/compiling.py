"""What a recipe's steps would do on a TPU slice that nobody has rented: memory, collectives,
attention, time.

Every step is compiled by the TPU's own compiler. Memory, collectives and what is written to HBM are
what it made; times, and all that follows from them, are estimates (`kdjax.hlo.estimate`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kdjax.budget.hardware import utilisation
from kdjax.config import Config
from kdjax.dry_run.pricing import WIDTH, arms_of, prices, shape_of
from kdjax.errors import InputError, nearest
from kdjax.hlo.aot import Slice, uncached
from kdjax.hlo.collectives import KINDS
from kdjax.hlo.estimate import SOURCES, estimate
from kdjax.hlo.execution import executed_collectives
from kdjax.hlo.materialised import materialised
from kdjax.hlo.text import Module, parse
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.program import program_of

GIB = 2**30
_FULL = (
    re.compile(
        r"Used (?P<needed>[\d.]+)(?P<unit>[KMGT]) of (?P<limit>[\d.]+)(?P<limit_unit>[KMGT]) hbm"
    ),
    re.compile(
        r"\((?P<needed>[\d.]+)(?P<unit>[KMGT])\) exceeds available HBM "
        r"\((?P<limit>[\d.]+)(?P<limit_unit>[KMGT])\)"
    ),
)
"""How the compiler says that a program does not fit."""


def compiled(config: Config, on: Slice, arms: Sequence[str] = (), top: int = 0) -> dict[str, Any]:
    """What the steps of a recipe's arms would do on a slice.

    Args:
        config: the recipe.
        on: the slice.
        arms: those to look at; none: all.
        top: how many of the longest operations of a step to list.

    Returns: `topology`, `chips`, `devices`, of a device `kind`, `peak_flops` and `hbm` (bytes a
        program can have), and
        `arms`: name -> a mapping for each phase, with `price`, `steps`, `fits`, `hbm` (bytes a
        device needs; where it does not fit, at least), `compile_seconds`, `collectives` (kind ->
        `arrays`, `bytes`), `attention` (type ->
        `arrays`, `bytes` written to HBM), and `estimated`: `step_seconds`, `by_source`,
        `hidden_seconds`, `utilisation`, `hours` of one run (None where they cannot be known),
        `unknown`, and with `top` the operations. Where the compiler gives up for want of memory,
        the last four are None.

    Raises:
        InputError: an arm that the recipe has not, or a recipe that the slice's devices do not
            divide.
    """
    if top < 0:
        raise InputError(f"--top is {top}, expected at least 0")
    ready = arms_of(config)
    for name in arms:
        if name not in ready:
            raise InputError(
                f"--arm is {name!r}, expected an arm of the recipe{nearest(name, ready)}"
            )
    chosen = {name: ready[name] for name in arms or ready}
    layout = Layout.of(config.train.mesh, on.devices)
    shape = shape_of(config)
    for phase in itertools.chain(*(arm.phases for arm in chosen.values())):
        layout.check_batch(phase.shape(shape).batch_size, config.train.grad_accum_steps)
    costs = prices(config)
    rows: dict[str, list[dict[str, Any]]] = {}
    with Reporter() as reporter:
        for name, arm in chosen.items():
            rows[name] = []
            for phase, cost in zip(arm.phases, costs[name], strict=True):
                reporter.status(f"{name}: compiling for {on.name}")
                row = _phase(config, on, layout, phase, cost["total"], top)
                rows[name].append({**row, "price": cost["total"], "steps": cost["steps"]})
                reporter.log(f"{name}: {_in_short(row)}")
            _add_hours(rows[name])
    return {
        "topology": on.name,
        "chips": on.chips,
        "devices": layout.devices,
        "kind": on.chip.kind,
        "peak_flops": on.chip.peak.flops_per_second,
        "hbm": on.chip.hbm,
        "arms": rows,
    }


def _phase(
    config: Config, on: Slice, layout: Layout, phase: Phase, price: int, top: int
) -> dict[str, Any]:
    shape = phase.shape(shape_of(config))
    try:
        with uncached():
            program = program_of(
                phase, shape, layout, config.train.grad_accum_steps, config.train.compute
            )
    except jax.errors.JaxRuntimeError as e:
        if (full := out_of_memory(str(e))) is None:
            raise
        return {
            "fits": False,
            "hbm": full,
            **dict.fromkeys(("compile_seconds", "collectives", "attention", "estimated")),
        }
    text = program.text
    module = parse(text)
    found = estimate(text, on.chip, program.kernels)
    heads = {
        one.heads // layout.mesh.shape["tensor"]
        for one in (phase.student, phase.teacher)
        if one is not None
    }
    written = materialised(module, _at_once(config, layout, shape), heads, shape.seq_len)
    needed = program.memory
    assert needed is not None
    return {
        "fits": needed["peak"] <= on.chip.hbm,
        "hbm": needed["peak"],
        "compile_seconds": program.compile_seconds,
        "collectives": _collectives(module),
        "attention": {one.dtype: {"arrays": one.arrays, "bytes": one.bytes} for one in written},
        "estimated": {
            "step_seconds": found.seconds,
            "by_source": found.by_source,
            "hidden_seconds": found.hidden,
            "utilisation": found.seconds
            and utilisation(price, found.seconds, on.chip.peak, layout.devices),
            "unknown": list(found.unknown),
            **({"top": [asdict(one) for one in found.top(top)]} if top else {}),
        },
    }


def _at_once(config: Config, layout: Layout, shape: BatchShape) -> int:
    """Sequences that a device works on at once."""
    return shape.batch_size // layout.batch_parts // config.train.grad_accum_steps


def _collectives(module: Module) -> dict[str, dict[str, int]]:
    """Arrays and bytes of each kind of collective that a step executes."""
    made: dict[str, dict[str, int]] = {}
    for one in executed_collectives(module):
        kind = made.setdefault(one.collective.kind, {"arrays": 0, "bytes": 0})
        kind["arrays"] += one.turns * one.collective.arrays
        kind["bytes"] += one.turns * one.collective.bytes
    return {kind: made[kind] for kind in KINDS if kind in made}


def out_of_memory(message: str) -> int | None:
    """Bytes of HBM that a program which does not fit needs at least; None where the message says
    something else."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = next((found for pattern in _FULL if (found := pattern.search(message))), None)
    return found and round(float(found["needed"]) * 2 ** (10 * (1 + "KMGT".index(found["unit"]))))


def _add_hours(phases: list[dict[str, Any]]) -> None:
    """Adds to each phase the hours that a run spends in it."""
    for phase in phases:
        if (estimated := phase["estimated"]) is not None:
            seconds = estimated["step_seconds"]
            steps = phase["steps"]
            estimated["hours"] = (
                None if seconds is None or steps is None else steps * seconds / 3600
            )


def _in_short(phase: dict[str, Any]) -> str:
    if phase["estimated"] is None:
        return f"needs more than {_gib(phase['hbm'])} GiB"
    seconds = phase["estimated"]["step_seconds"]
    compiling = f"compiled in {phase['compile_seconds']:.0f} s"
    step = (
        "a step of unknown length"
        if seconds is None
        else f"a step of {1e3 * seconds:.2f} ms by estimate"
    )
    return f"{_gib(phase['hbm'])} GiB, {step}, {compiling}"


def check_fits(found: dict[str, Any]) -> None:
    """Raises InputError if a step does not fit in the memory of its devices."""
    full = [
        name for name, phases in found["arms"].items() if not all(phase["fits"] for phase in phases)
    ]
    if full:
        raise InputError(
            f"{', '.join(full)}: do not fit in the {_gib(found['hbm'])} GiB of HBM of a device of "
            f"{found['topology']}, "
            "expected a larger slice, or train.grad_accum_steps, train.compute.remat or "
            "train.mesh.fsdp to need less"
        )


def compiled_table(found: dict[str, Any], seeds: int) -> None:
    """Prints what was found: a row for each phase, and what the estimates rest on."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=_title(found))
    table.add_column("arm", no_wrap=True)
    for head in (
        f"HBM, GiB\nof {_gib(found['hbm'])}",
        "sent\nMB",
        "L x L in\nHBM, MB",
        "estimate\nms",
        "of it compute, custom\ncalls, collectives, moves",
        "utilisation\nestimate",
        "hours a run\nestimate",
        "compiled\nin s",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for name, phases in found["arms"].items():
        for n, phase in enumerate(phases, start=1):
            table.add_row(name if len(phases) == 1 else f"{name}, phase {n}", *_cells(phase))
    console = Console(width=max(WIDTH, Console().width), highlight=False)
    console.print(table)
    for line in (*_notes(found, seeds), *_top(found)):
        console.print(line, soft_wrap=True, markup=False)


def _title(found: dict[str, Any]) -> str:
    return (
        f"One step on {found['topology']}: {found['chips']} chips, {found['devices']} devices of "
        f"{found['peak_flops'] / 1e12:,.0f} TFLOP/s, as the TPU compiler makes it; times are "
        "estimates"
    )


def _cells(phase: dict[str, Any]) -> list[str]:
    if not phase["fits"] and phase["estimated"] is None:
        return [f"> {_gib(phase['hbm'])} too much", *["-"] * 7]
    estimated = phase["estimated"]
    sent_bytes = sum(kind["bytes"] for kind in phase["collectives"].values())
    seconds = estimated["step_seconds"]
    return [
        _gib(phase["hbm"]) + ("" if phase["fits"] else " too much"),
        f"{sent_bytes / 1e6:.1f}",
        ", ".join(
            f"{dtype} {kind['bytes'] / 1e6:.0f}" for dtype, kind in phase["attention"].items()
        )
        or "none",
        "unknown" if seconds is None else f"{1e3 * seconds:.2f}",
        "  ".join(f"{1e3 * estimated['by_source'][source]:.2f}" for source in SOURCES),
        "-" if seconds is None else f"{estimated['utilisation']:.1%}",
        "-" if estimated["hours"] is None else f"{estimated['hours']:.3g}",
        f"{phase['compile_seconds']:.0f}",
    ]


def _notes(found: dict[str, Any], seeds: int) -> list[str]:
    """What the table's figures mean, one line each."""
    phases = [
        (name, phase)
        for name, several in found["arms"].items()
        for phase in several
        if phase["estimated"]
    ]
    lines = [
        "Estimates, not measured on a TPU. compute: the compiler's own cycles; custom calls "
        "(Pallas): their FLOPs at",
        "half the peak, or their bytes at HBM's rate; collectives: a ring over one link each way "
        "round; moves: bytes",
        "at HBM's rate. A step is their sum, as if none overlapped; asynchronous copies are taken "
        "to hide behind it.",
        "L x L: scores, probabilities, relations that go through HBM.",
    ]
    for name, phase in phases:
        kinds = phase["collectives"].items()
        if kinds:
            said = ", ".join(
                f"{kind} {of['arrays']} arrays, {of['bytes'] / 1e6:.1f} MB" for kind, of in kinds
            )
            lines.append(f"{name}: collectives: {said}")
        if unknown := phase["estimated"]["unknown"]:
            lines.append(f"{name}: no estimate: {'; '.join(unknown)}")
    hours = [phase["estimated"]["hours"] for _, phase in phases]
    if hours and None not in hours and len(phases) == sum(map(len, found["arms"].values())):
        runs = seeds * len(found["arms"])
        lines.append(
            f"Estimate for all {runs} runs, {seeds} a row: {seeds * sum(hours):.3g} hours of "
            "training."
        )
    return lines


def _top(found: dict[str, Any]) -> list[str]:
    """The longest operations of every phase."""
    lines = []
    for name, phases in found["arms"].items():
        for phase in phases:
            for one in (phase["estimated"] or {}).get("top", ()):
                turns = f" x {one['turns']}" if one["turns"] > 1 else ""
                where = " ".join(filter(None, (one["op_name"], one["place"])))
                lines.append(
                    f"{name}: {1e3 * one['seconds']:8.3f} ms {one['source']:12} "
                    f"{one['name']}{turns}  {where}"
                )
    return lines


def _gib(count: int) -> str:
    return f"{count / GIB:.2f}"
