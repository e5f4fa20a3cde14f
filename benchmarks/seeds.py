"""Compare seeds of an arm one after another with all of them side by side as one program.

    python -m benchmarks.seeds [--seeds N ...] [--arms NAME ...] [--dtype bfloat16]

Step: of each of N seeds, the batch brought to the device included, by the program of one seed N
times or by the program of N seeds once. Loop: the same within whole runs
(`kdjax.training.trainer`), with all that the host does for a step, but without compiling and the
checkpoint at the end. Both ways run in turn, a ratio is of neighbours, its interval that of the
median. Students read 8 x 64 tokens with 10 masked slots; the teacher is 6 x 384. Prints a Markdown
table.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import runs, tables
from benchmarks.cases import RATE, Same, batch
from benchmarks.timing import in_turn, ratio
from kdjax import models
from kdjax.config import ArmConfig, ComputeConfig, LogConfig, ModelConfig, OptimizerConfig
from kdjax.parallel.layout import Layout
from kdjax.runtime import memory
from kdjax.training.arm import resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs
from kdjax.training.train import train

SIZES = {"vocab_size": 30522, "max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0}
STUDENTS = {
    "2x128": ModelConfig(layers=2, width=128, heads=2, ffn=512, **SIZES),
    "3x192": ModelConfig(layers=3, width=192, heads=12, ffn=768, **SIZES),
}
TEACHER = ModelConfig(layers=6, width=384, heads=12, ffn=1536, **SIZES)
SHAPE = BatchShape(batch_size=8, seq_len=64, max_predictions=10)
SCHEDULE_INPUTS = ScheduleInputs(0.5, RATE)
LOOPS = 5
"""Whole runs of each way."""
WAYS = ("one by one", "at once")
HEADER = (
    "student",
    "arm",
    "seeds",
    *(f"step, {way}" for way in WAYS),
    "ratio",
    *(f"loop, {way}" for way in WAYS),
    "ratio",
    "compile, one",
    "compile, all",
    "device, one",
    "device, all",
)


@dataclass
class Seeds:
    """Runs of some seeds, in groups of as many as the program takes.

    Attributes:
        phase: the arm's only phase.
        program: the compiled step.
        groups: the seeds of each group.
        states: the training state of each group.
        batches: the batches of each group, on the host.
        teacher: the teacher's parameters on the device.
    """

    phase: Phase
    program: Program
    groups: list[range]
    states: list[Any]
    batches: list[list[dict[str, np.ndarray]]]
    teacher: Any

    def step(self) -> None:
        """Begin a step of each seed."""
        for number, group_batches in enumerate(self.batches):
            stacked = self.program.stack_batches(group_batches)
            self.states[number], _ = self.program.step(
                self.states[number], self.teacher, stacked, SCHEDULE_INPUTS
            )

    def wait(self) -> None:
        """Wait until the devices are done."""
        jax.block_until_ready(self.states)


def compile_seeds(phase: Phase, seeds: int, lanes: int, compute: ComputeConfig) -> Seeds:
    """Compile the step of so many lanes, and start all seeds in groups of as many."""
    layout = Layout.from_config(devices=jax.devices()[:1])
    program = Program(phase, SHAPE, layout, compute=compute, lanes=lanes)
    teacher = program.place_teacher(models.init(TEACHER, 0).params)
    groups = [range(first, first + lanes) for first in range(0, seeds, lanes)]
    # Both ways start every seed alike, whatever group it is in.
    states = []
    batches = []
    for group in groups:
        starts = [
            program.start(models.init(phase.student_config, seed).params, seed) for seed in group
        ]
        states.append(program.stack(starts))
        batches.append([batch(SHAPE, SIZES["vocab_size"], seed) for seed in group])
    return Seeds(phase, program, groups, states, batches, teacher)


def loop(seeds: Seeds, steps: int) -> float:
    """Return the seconds that whole runs of so many steps take, by their own clocks."""
    cost = price(seeds.phase, SHAPE)
    seconds = 0.0
    for group, group_batches in zip(seeds.groups, seeds.batches, strict=True):
        # Each group is trained as one program, and the groups one after another.
        with tempfile.TemporaryDirectory() as directory:
            specs = []
            for seed, seed_batch in zip(group, group_batches, strict=True):
                stream = Same(seed_batch, SHAPE.batch_size)
                spec = runs.run_spec(
                    CompiledPhase(seeds.phase, seeds.program, cost, stream, seeds.teacher),
                    steps * cost.total,
                    models.init(seeds.phase.student_config, seed).params,
                    Path(directory) / str(seed),
                    batch_size=SHAPE.batch_size,
                    seed=seed,
                    log=LogConfig(tensorboard=False),
                )
                specs.append(spec)
            seconds += sum(runs.loop_seconds(outcome.ledger) for outcome in train(*specs))
    return seconds


def row(student: str, arm: str, number: int, options: argparse.Namespace) -> list[str]:
    """Measure both ways of training so many seeds of an arm.

    Args:
        student: a name of `STUDENTS`.
        arm: name of the arm.
        number: how many seeds.
        options: the command line's.
    """
    (phase,) = resolve(arm, ArmConfig(), STUDENTS[student], TEACHER, OptimizerConfig()).phases
    compute = ComputeConfig(dtype=options.dtype)
    seeds = {
        "alone": compile_seeds(phase, number, 1, compute),
        "together": compile_seeds(phase, number, number, compute),
    }
    times = in_turn(seeds, options.rounds, options.seconds)

    # Loops of both ways have as many steps, about as long as a block.
    step_seconds = {name: float(np.median(times[name].wall)) / number for name in seeds}
    steps = max(5, round(options.seconds / step_seconds["alone"]))
    loops: dict[str, list[float]] = {name: [] for name in seeds}
    for _ in range(LOOPS):
        for name, seconds in loops.items():
            seconds.append(loop(seeds[name], steps))

    in_loop = {name: float(np.median(loops[name])) / steps / number for name in seeds}
    programs = [way.program for way in seeds.values()]
    peaks = []
    for program in programs:
        peak = program.memory["peak"] if program.memory else float("nan")
        peaks.append(1e-6 * peak)
    return [
        student,
        arm,
        str(number),
        *(f"{1000 * seconds:.2f} ms" for seconds in step_seconds.values()),
        str(ratio(times["alone"].wall, times["together"].wall)),
        *(f"{1000 * seconds:.2f} ms" for seconds in in_loop.values()),
        str(ratio(loops["alone"], loops["together"])),
        *(f"{program.compile_seconds:.0f} s" for program in programs),
        *(f"{megabytes:,.0f} MB" for megabytes in peaks),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[2, 4], metavar="N")
    add("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS, metavar="SIZE")
    add("--arms", nargs="+", default=["scratch", "logit"], metavar="NAME")
    add("--dtype", default="float32", choices=("float32", "bfloat16"))
    add("--rounds", type=int, default=9, help="blocks of each")
    add("--seconds", type=float, default=1.0, help="of a block, and of a seed in a loop")
    options = parser.parse_args()
    memory.configure_malloc()  # as kdjax's commands do
    device = jax.devices()[0].device_kind
    print(f"{device}, JAX {jax.__version__}, {options.dtype}; a step of one seed\n")
    print(tables.head(HEADER))
    for student in options.students:
        for arm in options.arms:
            for number in options.seeds:
                print(tables.row(row(student, arm, number, options)), flush=True)


if __name__ == "__main__":
    main()
