"""What a recipe's steps would do on a TPU slice that nobody has rented.

Every step is compiled by the TPU's own compiler. Memory, collectives and what is written to HBM are
what it made; times, and all that follows from them, are estimates (`kdjax.hlo.estimate`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import jax

from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.budget.hardware import utilisation
from kdjax.config import Config
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError, nearest
from kdjax.hlo.aot import Slice, without_compilation_cache
from kdjax.hlo.collectives import KINDS
from kdjax.hlo.estimate import estimate
from kdjax.hlo.execution import executed_collectives
from kdjax.hlo.materialised import find_materialised
from kdjax.hlo.program_text import Module, parse
from kdjax.parallel.layout import Layout
from kdjax.progress import Reporter
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.program import Program, program_of

GIB = 2**30
_OUT_OF_MEMORY = (
    re.compile(
        r"Used (?P<needed>[\d.]+)(?P<unit>[KMGT]) of (?P<limit>[\d.]+)(?P<limit_unit>[KMGT]) hbm"
    ),
    re.compile(
        r"\((?P<needed>[\d.]+)(?P<unit>[KMGT])\) exceeds available HBM "
        r"\((?P<limit>[\d.]+)(?P<limit_unit>[KMGT])\)"
    ),
)
"""How the compiler says that a program does not fit."""


def compile_recipe(
    config: Config, target: Slice, arms: Sequence[str] = (), top: int = 0
) -> dict[str, Any]:
    """Compile the steps of a recipe's arms for a slice, and estimate their time.

    Args:
        config: resolved recipe, with arms, mesh and batch.
        target: slice of TPUs to compile for.
        arms: names of those to look at; none: all.
        top: number of a step's longest operations to list.

    Returns:
        `topology`, `chips`, `devices`, of a device `kind`, `peak_flops` and `hbm` (bytes a program
        can have), and
        `arms`: name -> a mapping for each phase, with `price`, `steps`, `fits`, `hbm` (bytes a
        device needs; where it does not fit, at least), `compile_seconds`, `collectives` (kind ->
        `arrays`, `bytes`), `attention` (type -> `arrays`, `bytes` written to HBM), and `estimated`:
        `step_seconds`, `by_source`, `hidden_seconds`, `utilisation`, `hours` of one run (None where
        they cannot be known), `unknown`, and with `top` the operations. Where the compiler gives up
        for want of memory, the last four are None.

    Raises:
        InputError: an arm that the recipe has not, or a recipe that the slice's devices do not
            divide.
    """
    # All that can be wrong is found before the first, long compilation.
    if top < 0:
        raise InputError(f"--top is {top}, expected at least 0")
    all_arms = arms_of(config)
    for name in arms:
        if name not in all_arms:
            raise InputError(
                f"--arm is {name!r}, expected an arm of the recipe{nearest(name, all_arms)}"
            )
    chosen = {name: all_arms[name] for name in arms or all_arms}
    # The mesh is laid out over the slice's devices, not over this machine's.
    layout = Layout.from_config(config.train.mesh, target.devices)
    for arm in chosen.values():
        for phase in arm.phases:
            batch_size = phase.batch_shape(batch_shape_of(config)).batch_size
            layout.check_batch(batch_size, config.train.grad_accum_steps)
    step_prices = prices(config)

    rows: dict[str, list[dict[str, Any]]] = {}
    with Reporter() as reporter:
        for name, arm in chosen.items():
            rows[name] = []
            for phase, cost in zip(arm.phases, step_prices[name], strict=True):
                reporter.status(f"{name}: compiling for {target.name}")
                row = _phase_row(config, target, layout, phase, cost["total"], top)
                row["price"] = cost["total"]
                row["steps"] = cost["steps"]
                rows[name].append(row)
                reporter.log(f"{name}: {_summary(row)}")
            # After the lines, which come as the steps are compiled.
            _add_hours(rows[name])
    return {
        "topology": target.name,
        "chips": target.chips,
        "devices": layout.device_count,
        "kind": target.chip.kind,
        "peak_flops": target.chip.peak.flops_per_second,
        "hbm": target.chip.hbm,
        "arms": rows,
    }


def _phase_row(
    config: Config, target: Slice, layout: Layout, phase: Phase, price: int, top: int
) -> dict[str, Any]:
    """Compile a phase's step, and return what it needs and does."""
    batch_shape = phase.batch_shape(batch_shape_of(config))
    settings = config.train
    try:
        with without_compilation_cache():
            program = program_of(
                phase, batch_shape, layout, settings.grad_accum_steps, settings.compute
            )
    except jax.errors.JaxRuntimeError as e:
        # A step that does not fit is a result; all other errors are errors.
        needed = needed_bytes(str(e))
        if needed is None:
            raise
        unknown = dict.fromkeys(("compile_seconds", "collectives", "attention", "estimated"))
        return {"fits": False, "hbm": needed, **unknown}
    # The compiled text tells what the step sends and writes; the compiler tells its memory.
    module = parse(program.text)
    memory = program.memory
    assert memory is not None
    return {
        "fits": memory["peak"] <= target.chip.hbm,
        "hbm": memory["peak"],
        "compile_seconds": program.compile_seconds,
        "collectives": _collectives(module),
        "attention": _attention(config, module, layout, phase, batch_shape),
        "estimated": _estimated(program, target, layout.device_count, price, top),
    }


def _attention(
    config: Config, module: Module, layout: Layout, phase: Phase, batch_shape: BatchShape
) -> dict[str, dict[str, int]]:
    """Return, by type, the arrays of the size of attention scores that go through HBM."""
    heads = {phase.student_config.heads // layout.mesh.shape["tensor"]}
    if phase.teacher_config is not None:
        heads.add(phase.teacher_config.heads // layout.mesh.shape["tensor"])
    # Scores are of the sequences that a device works on at once.
    batch_size = batch_shape.batch_size // layout.batch_parts // config.train.grad_accum_steps
    written = find_materialised(module, batch_size, heads, batch_shape.seq_len)
    return {scores.dtype: {"arrays": scores.arrays, "bytes": scores.bytes} for scores in written}


def _estimated(
    program: Program, target: Slice, devices: int, price: int, top: int
) -> dict[str, Any]:
    """Estimate a step's time, and how well it uses the devices."""
    step = estimate(program.text, target.chip, program.kernels)
    # One operation of unknown time leaves the step's unknown.
    share_of_peak = None
    if step.seconds is not None:
        share_of_peak = utilisation(price, step.seconds, target.chip.peak, devices)
    estimated: dict[str, Any] = {
        "step_seconds": step.seconds,
        "by_source": step.by_source,
        "hidden_seconds": step.hidden,
        "utilisation": share_of_peak,
        "unknown": list(step.unknown),
    }
    if top:
        estimated["top"] = [asdict(operation) for operation in step.top(top)]
    return estimated


def _collectives(module: Module) -> dict[str, dict[str, int]]:
    """Count arrays and bytes of each kind of collective that a step executes."""
    counts: dict[str, dict[str, int]] = {}
    for transfer in executed_collectives(module):
        collective = transfer.collective
        count = counts.setdefault(collective.kind, {"arrays": 0, "bytes": 0})
        count["arrays"] += transfer.turns * collective.arrays
        count["bytes"] += transfer.turns * collective.bytes
    return {kind: counts[kind] for kind in KINDS if kind in counts}


def needed_bytes(message: str) -> int | None:
    """Read from the error the bytes of HBM that a program which does not fit needs at least.

    None where the compiler's message says something else.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in _OUT_OF_MEMORY:
        match = pattern.search(message)
        if match:
            unit: int = 2 ** (10 * (1 + "KMGT".index(match["unit"])))
            return round(float(match["needed"]) * unit)
    return None


def _add_hours(phases: list[dict[str, Any]]) -> None:
    """Add to each phase the hours that a run spends in it."""
    for phase in phases:
        estimated = phase["estimated"]
        if estimated is None:
            continue
        estimated["hours"] = None
        if estimated["step_seconds"] is not None and phase["steps"] is not None:
            estimated["hours"] = phase["steps"] * estimated["step_seconds"] / 3600


def _summary(phase: dict[str, Any]) -> str:
    """Return the memory and the time of a compiled step, in short."""
    if phase["estimated"] is None:
        return f"needs more than {gib(phase['hbm'])} GiB"
    seconds = phase["estimated"]["step_seconds"]
    step = "a step of unknown length"
    if seconds is not None:
        step = f"a step of {1e3 * seconds:.2f} ms by estimate"
    return f"{gib(phase['hbm'])} GiB, {step}, compiled in {phase['compile_seconds']:.0f} s"


def check_fits(rows: dict[str, Any]) -> None:
    """Check that every step fits in the memory of its devices.

    Args:
        rows: rows from `compile_recipe`.

    Raises:
        InputError: a step needs more memory than its devices have.
    """
    too_large = []
    for name, phases in rows["arms"].items():
        if not all(phase["fits"] for phase in phases):
            too_large.append(name)
    # The command adds fine-tuning (`kdjax.dry_run.task_compiling`).
    for name, tasks in rows.get("tasks", {}).items():
        if not tasks["fits"]:
            too_large.append(f"{name}'s fine-tuning")
    if too_large:
        raise InputError(
            f"{', '.join(too_large)}: do not fit in the {gib(rows['hbm'])} GiB of HBM of a device "
            f"of {rows['topology']}, expected a larger slice, or train.grad_accum_steps, "
            "train.compute.remat or train.mesh.fsdp to need less"
        )


def gib(count: int) -> str:
    """Return bytes as text in GiB."""
    return f"{count / GIB:.2f}"
