"""Compare kdjax's four arms with eager PyTorch, and the fused step with one of two programs.

    make bench                        on this machine's CPU, in an environment of its own
    python -m benchmarks.speed --pair small --arms logit
    python -m benchmarks.speed --profile --arms scratch    where the time of kdjax's step goes

On a GPU that both JAX and PyTorch see, the same command takes that, bfloat16 and larger batches.

Of every arm, the loss and every gradient are compared between the two (float32, relative 1e-4).
Arms come in random order; of an arm, blocks of steps of kdjax, of PyTorch and of the unfused step
alternate in random order, with matmuls between them, and every ratio is the median of ratios of
blocks of the same round, with its 95% interval by bootstrap. Steps are full optimiser steps on
batches that lie on the device. Writes speed.json and speed.md to --out.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

# A GPU's memory is shared with PyTorch here.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
import torch

from benchmarks import sameness, tables
from benchmarks.cases import ARMS, BATCHES, PAIRS, Case, Kdjax, batch, runner, start
from benchmarks.machine import describe, restrict
from benchmarks.profiling import profile
from benchmarks.timing import MatmulRate, Ratio, in_turn, ratio, xla_product
from benchmarks.torch_arms import Torch, torch_product
from benchmarks.unfused import Unfused
from kdjax.config import ComputeConfig
from kdjax.errors import InputError
from kdjax.runtime import memory
from kdjax.training.phase import BatchShape

SEQUENCES = {
    "cpu": {"tiny": 32, "small": 16, "large": 8, "modernbert": 4},
    "gpu": {"tiny": 1024, "small": 256, "large": 128, "modernbert": 64},
}
"""Sequences of a step by default."""
DTYPES = {"cpu": "float32", "gpu": "bfloat16"}
"""The type that a step computes in by default."""
TORCH_DEVICE = {"cpu": "cpu", "gpu": "cuda"}
"""PyTorch's name of a device."""
MATMULS = {"cpu": (1024, 2048), "gpu": (4096, 8192)}
"""Sizes of the square matmuls that the best rate is taken of."""
WHICH = ("pair", "arm", "dropout")
"""The first columns of every table."""
LOSSES_AGREE = {"float32": 1e-3, "bfloat16": 2e-2}
"""Largest relative difference between the losses of the two programs, without dropout."""


@dataclass(frozen=True)
class Row:
    """Figures of one arm between one pair of models; times in seconds, medians over rounds.

    Attributes:
        pair, arm, dropout: what was measured.
        batch_size, seq_len, max_predictions: shape of a step's batch.
        flops: price of a step.
        seconds: seconds of a step, by implementation.
        processor: seconds of all the process's threads, by implementation.
        tokens: tokens a second, padding included, by implementation.
        speedup: PyTorch's time over kdjax's.
        speedup_processor: ratio of processor seconds. With --threads 1 worth something on a busy
            machine too; with more, threads that wait for one another count as busy.
        share: price / time / the best matmul rate of the same round, by implementation.
        placing: seconds of placing a batch on kdjax's device.
        compiling: seconds of compiling kdjax's step.
        memory: bytes that kdjax's step needs, by the compiler.
        unfused: the unfused step's time over the fused one's, and what it needs; None where no
            teacher runs.
        difference: the largest relative difference of the loss and of any gradient.
    """

    pair: str
    arm: str
    dropout: float
    batch_size: int
    seq_len: int
    max_predictions: int
    flops: int
    seconds: dict[str, float]
    processor: dict[str, float]
    tokens: dict[str, float]
    speedup: Ratio
    speedup_processor: Ratio
    share: dict[str, float]
    placing: float
    compiling: float
    memory: dict[str, int] | None
    unfused: dict[str, Any] | None
    difference: float


def measure(case: Case, pair: str, options: argparse.Namespace, matmuls: MatmulRate) -> Row:
    """Compare one arm of kdjax and PyTorch."""
    params = case.student_params
    teacher = case.teacher_params
    batches = case.batches(BATCHES)
    kdjax = Kdjax(case, params, teacher, batches)
    other = Torch(
        case,
        params,
        teacher,
        batches,
        objective=case.phase.init_objective(0),
        device=TORCH_DEVICE[options.device],
        bfloat16=case.compute.dtype == "bfloat16",
    )
    runners: dict[str, Any] = {"kdjax": kdjax, "torch": other}
    if case.phase.teacher_config:
        runners["unfused"] = Unfused(case, params, teacher, batches, kdjax.program)
    # With dropout the two draw different numbers, and their losses differ.
    if not case.phase.uses_dropout:
        check_losses(case, kdjax, other)

    # The best rate of matmuls is measured in every round, and a share is of its own round's.
    before = len(matmuls.best)
    times = in_turn(runners, options.rounds, options.seconds, matmuls)
    attainable = case.price.total / np.asarray(matmuls.best[before:])
    seconds = {name: float(np.median(blocks.wall)) for name, blocks in times.items()}
    processor = {name: float(np.median(blocks.processor)) for name, blocks in times.items()}
    share = {name: float(np.median(attainable / blocks.wall)) for name, blocks in times.items()}
    return Row(
        pair=pair,
        arm=case.arm,
        dropout=case.pair.student.dropout,
        **asdict(case.shape),
        flops=case.price.total,
        seconds=seconds,
        processor=processor,
        tokens={name: case.shape.tokens_per_step / step for name, step in seconds.items()},
        speedup=ratio(times["torch"].wall, times["kdjax"].wall),
        speedup_processor=ratio(times["torch"].processor, times["kdjax"].processor),
        share=share,
        placing=kdjax.placing,
        compiling=kdjax.program.compile_seconds,
        memory=kdjax.program.memory,
        unfused=unfused_figures(runners["unfused"], times) if "unfused" in runners else None,
        difference=largest_difference(case),
    )


def unfused_figures(unfused: Unfused, times: Any) -> dict[str, Any]:
    """Return the unfused step's time over the fused one's, and its memory."""
    return {
        "time over fused": ratio(times["unfused"].wall, times["kdjax"].wall),
        "handed over": unfused.handed_over,
        "peak": unfused.peak,
        "teacher": unfused.teacher_memory,
        "student": unfused.student_memory,
    }


def largest_difference(case: Case) -> float:
    """Return the largest relative difference from PyTorch, and end the run if it is too large.

    On the CPU, in float32, without dropout, with two sequences: their number does not matter.
    """
    pair = case.pair.dropped(0.0)
    small = replace(
        case, pair=pair, shape=replace(case.shape, batch_size=2), compute=ComputeConfig()
    )
    # A GPU would round float32 matmuls; the CPU computes them in full.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        differences = sameness.differences(
            small,
            start(pair.student, 2),
            start(pair.teacher, 3),
            small.phase.init_objective(4),
            batch(small.shape, pair.student.vocab_size, 5),
        )
    name, largest = max(differences.items(), key=lambda item: item[1])
    if not largest <= sameness.TOLERANCE:
        sys.exit(
            f"{case.arm}: {name} differs by {largest:.2g} between kdjax and PyTorch, at most "
            f"{sameness.TOLERANCE}"
        )
    return largest


def check_losses(case: Case, kdjax: Kdjax, other: Torch) -> None:
    """End the run unless the programs that are about to be timed start at the same loss."""
    ours = float(kdjax.step()["loss"])
    theirs = other.step().item()
    if not abs(ours - theirs) <= LOSSES_AGREE[case.compute.dtype] * abs(ours):
        sys.exit(f"{case.arm}: the first loss is {ours:.6g} in kdjax and {theirs:.6g} in PyTorch")


def sections(
    rows: list[Row], rates: dict[str, list[float]]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, header and cells of each table."""
    speed = []
    cost = []
    split = []
    for row in rows:
        peak = _mb((row.memory or {}).get("peak"))
        columns = [row.pair, row.arm, f"{row.dropout:g}"]
        speed.append(
            [
                *columns,
                *(f"{1e3 * row.seconds[name]:.1f}" for name in ("kdjax", "torch")),
                *(f"{row.tokens[name]:,.0f}" for name in ("kdjax", "torch")),
                str(row.speedup),
                *(f"{row.share[name]:.0%}" for name in ("kdjax", "torch")),
            ]
        )
        cost.append(
            [
                *columns,
                f"{row.batch_size} x {row.seq_len}, {row.max_predictions}",
                f"{row.flops / 1e9:.1f}",
                *(f"{1e3 * row.processor[name]:.0f}" for name in ("kdjax", "torch")),
                str(row.speedup_processor),
                f"{1e3 * row.placing:.2f}",
                f"{row.compiling:.1f}",
                peak,
                f"{row.difference:.0e}",
            ]
        )
        # Only an arm with a teacher can be split in two programs.
        if row.unfused:
            split.append(
                [
                    *columns,
                    *(f"{1e3 * row.seconds[name]:.1f}" for name in ("kdjax", "unfused")),
                    str(row.unfused["time over fused"]),
                    peak,
                    _mb(row.unfused["peak"]),
                    _mb(row.unfused["handed over"]),
                ]
            )
    measured = ", ".join(
        f"{name} {np.median(library_rates) / 1e9:,.0f} GFLOP/s"
        for name, library_rates in rates.items()
    )
    return [
        (
            "A step in kdjax and in eager PyTorch (best matmul rate, median over rounds: "
            f"{measured})",
            [
                *WHICH,
                "kdjax ms",
                "torch ms",
                "kdjax tokens/s",
                "torch tokens/s",
                "speed-up [95%]",
                "kdjax share",
                "torch share",
            ],
            speed,
        ),
        (
            "What a step costs",
            [
                *WHICH,
                "batch x length, slots",
                "GFLOP",
                "kdjax CPU ms",
                "torch CPU ms",
                "speed-up by CPU time",
                "placing ms",
                "compile s",
                "peak MB",
                "difference",
            ],
            cost,
        ),
        (
            "The fused step, and the teacher in a program of its own",
            [
                *WHICH,
                "fused ms",
                "unfused ms",
                "unfused / fused [95%]",
                "fused peak MB",
                "unfused peak MB",
                "handed over MB",
            ],
            split,
        ),
    ]


def _mb(size: int | None) -> str:
    """Return bytes in MB; a dash where the compiler does not say."""
    return "-" if size is None else f"{size / 1e6:,.0f}"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pair", nargs="+", choices=PAIRS, default=list(PAIRS), help="models; default: all")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--batch", type=int, help="sequences of a step; default: by pair and device")
    add("--length", type=int, help="tokens of a sequence; default: by pair")
    add("--slots", type=int, help="masked positions of a sequence; default: by pair")
    add(
        "--dropout",
        type=float,
        nargs="+",
        help="of the student; default: 0, and for the first arm 0.1 as well",
    )
    add("--rounds", type=int, default=9, help="blocks of each implementation")
    add("--seconds", type=float, default=1.0, help="about how long a block lasts")
    add("--threads", type=int, help="cores to use, of those this process may; default: all of them")
    # Every setting of kdjax is an option of the same name.
    for name, hint in get_type_hints(ComputeConfig).items():
        add(
            f"--{name}",
            choices=get_args(hint) or ("true", "false"),
            help="as in a recipe's train.compute",
        )
    add("--profile", action="store_true", help="only show where the time of kdjax's step goes")
    add("--out", type=Path, default=Path("runs/bench"))
    return parser.parse_args()


def computed(options: argparse.Namespace) -> ComputeConfig:
    """Return how kdjax computes: bfloat16 on a GPU, its defaults, what the command line says."""
    settings: dict[str, Any] = {"dtype": DTYPES[options.device]}
    for name in get_type_hints(ComputeConfig):
        value = getattr(options, name)
        if value:
            settings[name] = value
        if value in ("true", "false"):
            settings[name] = value == "true"
    return ComputeConfig(**settings)


def main() -> None:
    """Measure what the command line asks for; what it gets wrong is one line."""
    options = arguments()
    try:
        run(options)
    except InputError as e:
        print(f"benchmarks.speed: {e}", file=sys.stderr)
        sys.exit(2)


def check(options: argparse.Namespace) -> None:
    """Raise InputError for sizes that make no batch."""
    for name in ("batch", "length", "slots", "rounds"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}, expected at least 1")
    for pair in options.pair:
        shape = shape_of(pair, options)
        if shape.max_predictions > shape.seq_len:
            raise InputError(
                f"--slots is {shape.max_predictions}, expected at most --length, {shape.seq_len} "
                f"({pair})"
            )


def shape_of(pair: str, options: argparse.Namespace) -> BatchShape:
    """Return the shape of a pair's batches: its own, but for what the command line says."""
    return BatchShape(
        options.batch or SEQUENCES[options.device][pair],
        options.length or PAIRS[pair].length,
        options.slots or PAIRS[pair].slots,
    )


def run(options: argparse.Namespace) -> None:
    """Measure, show and write what the command line asks for."""
    has_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    options.device = "gpu" if has_gpu else "cpu"
    check(options)
    memory.configure_malloc()  # as kdjax's commands do, for both
    torch.set_num_threads(restrict(options.threads))
    console = tables.console(180)
    config = computed(options)
    # Both libraries multiply: the better rate is what the machine can do.
    matmuls = MatmulRate(
        {
            "XLA": xla_product(config.dtype),
            "PyTorch": torch_product(TORCH_DEVICE[options.device], getattr(torch, config.dtype)),
        },
        MATMULS[options.device],
    )
    selected = []
    for pair in options.pair:
        shape = shape_of(pair, options)
        for arm in options.arms:
            if arm not in PAIRS[pair].arms:
                console.print(f"{pair} {arm}: left out, as its models do not allow it")
                continue
            # The first arm shows what dropout costs.
            rates = [0.0, 0.1] if arm == options.arms[0] else [0.0]
            rates = options.dropout or rates
            for rate in rates:
                selected.append((pair, Case(arm, PAIRS[pair].dropped(rate), shape, config)))
    # Profiling shows kdjax alone, and measures nothing else.
    if options.profile:
        for pair, case in selected:
            show_profile(pair, case, options.rounds)
        return

    # In random order, so that a machine that grows busier is not the last arms' fault.
    order = random.Random(0).sample(range(len(selected)), len(selected))
    measured: dict[int, Row] = {}
    machine = describe()
    for done, n in enumerate(order, 1):
        pair, case = selected[n]
        console.print(
            f"{done}/{len(order)}: {pair} {case.arm}, dropout {case.pair.student.dropout:g}",
            style="dim",
        )
        measured[n] = measure(case, pair, options, matmuls)
        gc.collect()
        rows = [measured[n] for n in sorted(measured)]
        shown = sections(rows, matmuls.rates)
        # After every arm: whatever ends the run, those done are written.
        write(options.out, machine, rows, matmuls, shown)
    for title, header, cells in shown:
        if cells:
            tables.show(console, title, header, cells, words=WHICH)
    console.print(f"{options.out}/speed.json, speed.md")


def show_profile(pair: str, case: Case, steps: int) -> None:
    """Print where the time of a step goes, as Markdown."""
    kdjax = runner(case)
    # The first steps allocate, and are no steps to profile.
    for _ in range(3):
        kdjax.step()
    kdjax.wait()
    print(
        f"## {pair} {case.arm}, {case.shape.batch_size} x {case.shape.seq_len}, dropout "
        f"{case.pair.student.dropout:g}\n"
    )

    def whole_step() -> Any:
        kdjax.step()
        return kdjax.state

    print(profile(whole_step, kdjax.program.text, steps).table(), "\n", flush=True)


def write(
    out: Path, machine: dict[str, Any], rows: list[Row], matmuls: MatmulRate, shown: Any
) -> None:
    """Write speed.json and speed.md."""
    out.mkdir(parents=True, exist_ok=True)
    about = {
        **machine,
        "load after": describe()["load"],
        "command": " ".join(["python -m benchmarks.speed", *sys.argv[1:]]),
    }
    everything = {
        "machine": about,
        "rows": [asdict(row) for row in rows],
        "matmul rates": matmuls.rates,
    }
    (out / "speed.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    # What the figures were measured on stands above the tables.
    lines = [f"- {name}: {value}" for name, value in about.items()]
    for title, header, cells in shown:
        if cells:
            lines.append(f"\n{title}\n\n{tables.markdown(header, cells)}")
    (out / "speed.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
