"""Seeds of an arm one after another against all of them side by side as one program.

    python -m benchmarks.seeds [--seeds N ...] [--arms NAME ...] [--dtype bfloat16]

Step: of each of N seeds, the batch brought to the device included, by the program of one seed N
    times or by the program
of N seeds once. Loop: the same within whole runs (`kdjax.training.trainer`), with all that the host
does for a step, but without compiling and the checkpoint at the end. Both ways run in turn, a ratio
is of neighbours, its interval that of the median. Students read 8 x 64 tokens with 10 masked slots;
the teacher is 6 x 384. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import cases, tables
from benchmarks.cases import Same
from benchmarks.timing import in_turn, ratio
from kdjax import memory, models
from kdjax.budget.accounting import Budget
from kdjax.config import (
    ArmConfig,
    ComputeConfig,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.phase import BatchShape, Phase, price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs
from kdjax.training.train import train
from kdjax.training.trainer import Trainer

SIZES = {"vocab_size": 30522, "max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0}
STUDENTS = {
    "2x128": ModelConfig(layers=2, width=128, heads=2, ffn=512, **SIZES),
    "3x192": ModelConfig(layers=3, width=192, heads=12, ffn=768, **SIZES),
}
TEACHER = ModelConfig(layers=6, width=384, heads=12, ffn=1536, **SIZES)
SHAPE = BatchShape(batch_size=8, seq_len=64, max_predictions=10)
MOMENT = ScheduleInputs(0.5, 1e-4)


def batch(seed: int) -> dict[str, np.ndarray]:
    """Return a batch of random tokens."""
    return cases.batch(SHAPE, SIZES["vocab_size"], seed)


@dataclass
class Seeds:
    """Runs of some seeds, in groups of as many as the program takes.

    Attributes:
        program: compiled.
        states: of each group.
        batches: of each group, on the host.
        teacher: on the device.
    """

    program: Program
    states: list[Any]
    batches: list[list[dict[str, np.ndarray]]]
    teacher: Any

    def step(self) -> None:
        """A step of each seed."""
        for n, of_group in enumerate(self.batches):
            self.states[n], _ = self.program.step(
                self.states[n], self.teacher, self.program.stack_batches(of_group), MOMENT
            )

    def wait(self) -> None:
        """Until the devices are done."""
        jax.block_until_ready(self.states)


def runs(phase: Phase, seeds: int, at_once: int, compute: ComputeConfig) -> Seeds:
    """Runs at their start."""
    program = Program(
        phase, SHAPE, Layout.of(devices=jax.devices()[:1]), compute=compute, lanes=at_once
    )
    teacher = program.place_teacher(models.init(TEACHER, 0).params if phase.teacher else None)
    groups = [range(first, first + at_once) for first in range(0, seeds, at_once)]
    states = [
        program.stack(
            [program.start(models.init(phase.student, seed).params, seed) for seed in group]
        )
        for group in groups
    ]
    return Seeds(program, states, [[batch(seed) for seed in group] for group in groups], teacher)


def loop(phase: Phase, made: Seeds, steps: int) -> float:
    """Seconds that whole runs of so many steps take, by their own clocks."""
    cost = price(phase, SHAPE)
    seconds = 0.0
    first = 0
    for _ in made.states:
        with tempfile.TemporaryDirectory() as directory:
            outcomes = train(
                *(
                    Trainer(
                        [
                            CompiledPhase(
                                phase,
                                made.program,
                                cost,
                                Same(batch(seed), SHAPE.batch_size),
                                made.teacher,
                            )
                        ],
                        Budget.flops(steps * cost.total),
                        start=models.init(phase.student, seed).params,
                        seed=seed,
                        config=TrainConfig(
                            batch_size=SHAPE.batch_size,
                            log=LogConfig(tensorboard=False),
                            evaluations=1,
                        ),
                        directory=Path(directory) / str(seed),
                    )
                    for seed in range(first, first + made.program.lanes)
                )
            )
        first += made.program.lanes
        seconds += sum(
            one.ledger.seconds["compute"] + one.ledger.seconds["input"] for one in outcomes
        )
    return seconds


def row(student: str, arm: str, seeds: int, options: argparse.Namespace) -> list[str]:
    """A row of the table."""
    (phase,) = resolve(arm, ArmConfig(), STUDENTS[student], TEACHER, OptimizerConfig()).phases
    compute = ComputeConfig(dtype=options.dtype)
    both = {"alone": runs(phase, seeds, 1, compute), "together": runs(phase, seeds, seeds, compute)}
    times = in_turn(both, options.rounds, options.seconds)
    each = {name: float(np.median(found.wall)) / seeds for name, found in times.items()}
    steps = max(5, round(options.seconds / each["alone"]))
    loops: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(options.loops):
        for name, made in both.items():
            loops[name].append(loop(phase, made, steps))
    in_loop = {name: float(np.median(found)) / steps / seeds for name, found in loops.items()}
    needed = [
        1e-6 * made.program.memory["peak"] if made.program.memory else float("nan")
        for made in both.values()
    ]
    return [
        student,
        arm,
        str(seeds),
        *(f"{1000 * each[name]:.2f} ms" for name in both),
        str(ratio(times["alone"].wall, times["together"].wall)),
        *(f"{1000 * in_loop[name]:.2f} ms" for name in both),
        str(ratio(loops["alone"], loops["together"])),
        *(f"{made.program.compile_seconds:.0f} s" for made in both.values()),
        *(f"{megabytes:,.0f} MB" for megabytes in needed),
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 4], metavar="N")
    parser.add_argument(
        "--students", nargs="+", default=list(STUDENTS), choices=STUDENTS, metavar="SIZE"
    )
    parser.add_argument("--arms", nargs="+", default=["scratch", "logit"], metavar="NAME")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each")
    parser.add_argument("--loops", type=int, default=5, help="loops of each")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of a block, and of a seed in a loop, one by one"
    )
    options = parser.parse_args()
    memory.configure_malloc()  # as kdjax's commands do
    print(
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, {options.dtype}; a step of one "
        "seed\n"
    )
    both = ("one by one", "at once")
    heads = [*(f"step, {way}" for way in both), "ratio", *(f"loop, {way}" for way in both), "ratio"]
    heads += [f"{what}, {of}" for what in ("compile", "device") for of in ("one", "all")]
    print(tables.head(["student", "arm", "seeds", *heads]))
    for student in options.students:
        for arm in options.arms:
            for seeds in options.seeds:
                print(tables.row(row(student, arm, seeds, options)), flush=True)


if __name__ == "__main__":
    main()
