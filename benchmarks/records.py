"""What watching a run costs: the same run with and without records, in turn, and the ratio of their
seconds.

    python benchmarks/records.py --steps 300 --repeats 9

A small student (3 x 192, 8 x 64 tokens a step) on random tokens, so that the host's work counts for
much. With records: the defaults, a record every 10 steps to metrics.jsonl and event files. Without:
none. Runs alternate, which goes first too; a ratio is the median over pairs. Processor seconds, of
all threads, are worth something on a busy machine too, wall-clock is not. What the training loop
itself spends on a record is taken apart, over 1,000 of them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax import models
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import ArmConfig, LogConfig, ModelConfig, OptimizerConfig, TrainConfig
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.metrics import MetricsRecorder, PendingStep
from kdjax.training.metrics_log import NAME, Log
from kdjax.training.phase import BatchShape, Phase, price
from kdjax.training.program import Program
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.train import train
from kdjax.training.trainer import Trainer

SHAPE = BatchShape(batch_size=8, seq_len=64, max_predictions=10)
STUDENT = ModelConfig(layers=3, width=192, heads=12, ffn=768, vocab_size=30522, max_positions=64)
EVERY = 10
WATCHED = LogConfig(every=EVERY)
UNWATCHED = LogConfig(every=10**9, tensorboard=False)


class Noise:
    """Batches of random tokens, the same for every run."""

    sequences = 10**9

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        tokens = (SHAPE.batch_size, SHAPE.seq_len)
        slots = (SHAPE.batch_size, SHAPE.max_predictions)
        self._batch = {
            "tokens": rng.integers(0, STUDENT.vocab_size, tokens, np.int32),
            "segments": np.ones(tokens, np.int32),
            "positions": np.broadcast_to(np.arange(SHAPE.seq_len, dtype=np.int32), tokens),
            "valid": np.ones(tokens, np.bool_),
            "slots": np.broadcast_to(np.arange(SHAPE.max_predictions, dtype=np.int32), slots),
            "labels": rng.integers(0, STUDENT.vocab_size, slots, np.int32),
            "label_weights": np.ones(slots, np.float32),
        }

    def iterate(
        self, seen: int, rows: Any = slice(None)
    ) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        while True:
            yield seen, {name: array[rows] for name, array in self._batch.items()}
            seen += SHAPE.batch_size


def run(phase: Phase, program: Program, steps: int, log: LogConfig) -> tuple[float, float]:
    """Seconds of one run: of its steps by its own clock, and of processors, all of it."""
    cost = price(phase, SHAPE)
    before = time.process_time()
    with tempfile.TemporaryDirectory() as directory:
        (outcome,) = train(
            Trainer(
                [CompiledPhase(phase, program, cost, Noise())],
                Budget.flops(steps * cost.total),
                start=models.init(STUDENT, 0).params,
                seed=0,
                config=TrainConfig(batch_size=SHAPE.batch_size, log=log, evaluations=1),
                directory=Path(directory),
            )
        )
    return outcome.ledger.seconds["compute"] + outcome.ledger.seconds[
        "input"
    ], time.process_time() - before


def a_record(phase: Phase, records: int = 1000) -> tuple[float, float, float]:
    """Of a record: seconds of the training loop to make it and hand it on, bytes of its line,
    seconds to read it."""
    cost = price(phase, SHAPE)
    clock = Stopwatch({})
    taken = []
    ledger = Ledger.open(Budget.flops((records + 1) * cost.total))
    groups = ("embeddings", *(f"layer_{n}" for n in range(1, STUDENT.layers + 1)), "head")
    figures = {
        "loss": 1.25,
        "mlm": 1.25,
        "grad_norm": 0.5,
        **{f"grad_norm/{group}": 0.25 for group in groups},
    }
    meter = MetricsRecorder([phase], 1, ledger, clock, None)
    with tempfile.TemporaryDirectory() as directory:
        with contextlib.closing(Log(Path(directory), 0, WATCHED)) as log:
            for step in range(1, records + 1):
                ledger = ledger.charge(
                    0,
                    cost,
                    SHAPE.tokens_per_step,
                    SHAPE.tokens_per_step,
                    SHAPE.tokens_per_step,
                    SHAPE.batch_size,
                )
                started = time.perf_counter()
                log.write(
                    step,
                    meter.record(PendingStep(ledger, 0, ScheduleInputs(0.5, 1e-3), {}), figures),
                )
                taken.append(time.perf_counter() - started)
        started = time.perf_counter()
        Log(Path(directory), records, WATCHED).close()
        again = time.perf_counter() - started
        size = (Path(directory) / NAME).stat().st_size
    return statistics.median(taken), size / records, again / records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    (phase,) = resolve("scratch", ArmConfig(), STUDENT, None, OptimizerConfig()).phases
    program = Program(phase, SHAPE, Layout.of())
    once, size, again = a_record(phase)
    print(
        f"a record: {1e6 * once:.0f} microseconds of the training loop, {size:.0f} bytes; "
        f"{1e6 * again:.0f} microseconds to read it once more when a run goes on",
        flush=True,
    )
    for log in (WATCHED, UNWATCHED):
        run(phase, program, EVERY, log)  # imports, first files
    pairs = []
    for n in range(options.repeats):
        order = (WATCHED, UNWATCHED) if n % 2 else (UNWATCHED, WATCHED)
        taken = {log.every: run(phase, program, options.steps, log) for log in order}
        pairs.append((taken[WATCHED.every], taken[UNWATCHED.every]))
    for kind, what in enumerate(("wall-clock", "processor seconds")):
        ratios = sorted(watched[kind] / unwatched[kind] for watched, unwatched in pairs)
        a_step = statistics.median(unwatched[kind] for _, unwatched in pairs) / options.steps
        print(
            f"{what}: ratio {statistics.median(ratios):.4f} (from {ratios[0]:.4f} to "
            f"{ratios[-1]:.4f}), "
            f"{1e3 * a_step:.2f} ms a step without records"
        )


if __name__ == "__main__":
    main()
