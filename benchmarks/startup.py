"""Time what a command does before its first step is done, each time in a process of its own.

    python -m benchmarks.startup [--pair small|large ...] [--arms NAME ...] [--rounds 3]

recipe: starting Python, reading and checking `configs/demo.yaml`. imports: what `kdjax compare`
imports. price: that of an arm's step. compile: of that step. parameters: the models' and the
optimiser's. step: the first one. With an empty compile cache, and with one that another process has
filled. A batch has 16 x 128 tokens and 20 slots. Prints a Markdown table of medians in seconds.
"""

# ruff: noqa: PLC0415 - when something is imported is what is measured

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import tables

STAGES = ("recipe", "imports", "price", "compile", "parameters", "step")
RECIPE = Path(__file__).parents[1] / "configs" / "demo.yaml"


def main() -> None:
    """Print two rows for each arm of each pair of models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", nargs="+", default=["small", "large"])
    parser.add_argument("--arms", nargs="+", default=["scratch", "logit", "tinybert", "minilm"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(tables.head(["pair, arm", "compile cache", *STAGES, "all"]))
    for pair in options.pair:
        for arm in options.arms:
            print("\n".join(rows(pair, arm, options.rounds)), flush=True)


def rows(pair: str, arm: str, rounds: int) -> Iterator[str]:
    """Yield two rows of the table: with an empty compile cache, and with a filled one."""
    measured: dict[str, list[Sequence[float]]] = {"empty": [], "filled": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            # The second process finds what the first has compiled.
            for processes in measured.values():
                processes.append(started(pair, arm, cache))
    for name, processes in measured.items():
        medians = [statistics.median(stage) for stage in zip(*processes, strict=True)]
        cells = [f"{seconds:.2f}" for seconds in (*medians, sum(medians))]
        yield tables.row([f"{pair} {arm}", name, *cells])


def started(pair: str, arm: str, cache: str) -> Sequence[float]:
    """Return the seconds of each stage of one process."""
    command = [sys.executable, "-m", "benchmarks.startup", "child", pair, arm, repr(time.time())]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    ended = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    seconds: Sequence[float] = json.loads(ended.stdout)
    return seconds


def child(pair: str, arm: str) -> Iterator[None]:
    """Do what a command does up to its first step; a stage is done at each yield."""
    from kdjax import recipes

    recipes.load(RECIPE)
    yield
    import jax

    from kdjax.runtime import memory
    from kdjax.storage import compiled_programs
    from kdjax.study import compare  # noqa: F401

    memory.configure_malloc()
    compiled_programs.enable_compilation_cache()
    yield
    from benchmarks.cases import PAIRS, RATE, Case
    from kdjax.parallel.layout import Layout
    from kdjax.training.phase import BatchShape
    from kdjax.training.program import Program
    from kdjax.training.step import ScheduleInputs

    models = PAIRS[pair]
    case = Case(arm, models, BatchShape(16, models.length, models.slots))
    assert case.price.total > 0
    yield
    program = Program(case.phase, case.shape, Layout.from_config(devices=jax.devices()[:1]))
    yield
    state = program.start(case.student_params, seed=0)
    teacher = program.place_teacher(case.teacher_params)
    yield
    (batch,) = case.batches(1)
    jax.block_until_ready(
        program.step(state, teacher, program.place(batch), ScheduleInputs(0.5, RATE))
    )
    yield


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        # The first stage began when the process was started, which its parent says.
        moments = [float(sys.argv[4]), *(time.time() for _ in child(sys.argv[2], sys.argv[3]))]
        print(json.dumps([after - before for before, after in itertools.pairwise(moments)]))
    else:
        main()
