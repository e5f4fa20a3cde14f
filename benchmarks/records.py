"""Measure what watching a run costs: the same run with and without records, in turn.

    python -m benchmarks.records --steps 300 --repeats 9

A small student (3 x 192, 8 x 64 tokens a step) on random tokens, so that the host's work counts for
much. With records: the defaults, a record every 10 steps to metrics.jsonl and event files. Without:
none. Runs alternate, which goes first too; a ratio of seconds is the median over pairs. Processor
seconds, of all threads, are worth something on a busy machine too, wall-clock is not. What the
training loop itself spends on a record is taken apart, over 1,000 of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import cases, runs
from kdjax import models
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import ArmConfig, LogConfig, ModelConfig, OptimizerConfig
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from kdjax.training.records.metrics_log import NAME, Log
from kdjax.training.records.step_metrics import MetricsRecorder, PendingStep
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.train import train

SHAPE = BatchShape(batch_size=8, seq_len=64, max_predictions=10)
STUDENT = ModelConfig(layers=3, width=192, heads=12, ffn=768, vocab_size=30522, max_positions=64)
EVERY = 10
WATCHED = LogConfig(every=EVERY)
UNWATCHED = LogConfig(every=10**9, tensorboard=False)
RECORDS = 1000
"""Records that the cost of one is measured over."""


def run(phase: CompiledPhase, steps: int, log: LogConfig) -> tuple[float, float]:
    """Return a run's seconds: of its steps by its own clock, and of processors, all of it."""
    before = time.process_time()
    # Starting the model is in both kinds of run alike.
    params = models.init(STUDENT, 0).params
    flops = steps * phase.price.total
    with tempfile.TemporaryDirectory() as directory:
        spec = runs.run_spec(
            phase, flops, params, Path(directory), batch_size=SHAPE.batch_size, log=log
        )
        (outcome,) = train(spec)
    return runs.loop_seconds(outcome.ledger), time.process_time() - before


def record_cost(phase: CompiledPhase) -> tuple[float, float, float]:
    """Return the seconds that writing a record takes, its bytes, and the seconds to read it."""
    # The figures of a step are made up: how many there are is what counts.
    metrics = {"loss": 1.25, "mlm": 1.25, "grad_norm": 0.5}
    for group in ("embeddings", "head", *(f"layer_{n}" for n in range(1, STUDENT.layers + 1))):
        metrics[f"grad_norm/{group}"] = 0.25
    seconds = []
    ledger = Ledger.open(Budget.flops((RECORDS + 1) * phase.price.total))
    recorder = MetricsRecorder([phase.phase], 1, ledger, Stopwatch({}), None)
    tokens = SHAPE.tokens_per_step
    with tempfile.TemporaryDirectory() as directory:
        log = Log(Path(directory), 0, WATCHED)
        for step in range(1, RECORDS + 1):
            ledger = ledger.charge(0, phase.price, tokens, tokens, tokens, SHAPE.batch_size)
            pending = PendingStep(ledger, 0, ScheduleInputs(0.5, 1e-3), {})
            started = time.perf_counter()
            log.write(step, recorder.record(pending, metrics))
            seconds.append(time.perf_counter() - started)
        log.close()

        # A run that goes on reads the records that it finds.
        started = time.perf_counter()
        Log(Path(directory), RECORDS, WATCHED).close()
        reading = time.perf_counter() - started
        size = (Path(directory) / NAME).stat().st_size
    return statistics.median(seconds), size / RECORDS, reading / RECORDS


def main() -> None:
    """Print what a record costs, and the ratios of runs with and without records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()

    (arm_phase,) = resolve("scratch", ArmConfig(), STUDENT, None, OptimizerConfig()).phases
    stream = cases.Same(cases.batch(SHAPE, STUDENT.vocab_size, 0), SHAPE.batch_size)
    program = Program(arm_phase, SHAPE, Layout.from_config())
    phase = CompiledPhase(arm_phase, program, price(arm_phase, SHAPE), stream)
    writing, size, reading = record_cost(phase)
    print(
        f"a record: {1e6 * writing:.0f} microseconds of the training loop, {size:.0f} bytes; "
        f"{1e6 * reading:.0f} microseconds to read it once more when a run goes on",
        flush=True,
    )

    # The first runs pay for imports and first files, and are not counted.
    seconds: dict[int, list[tuple[float, float]]] = {}
    for log in (WATCHED, UNWATCHED):
        run(phase, EVERY, log)
        seconds[log.every] = []
    for number in range(options.repeats):
        # Which of the two goes first alternates.
        for log in sorted((WATCHED, UNWATCHED), key=lambda log: log.every, reverse=not number % 2):
            seconds[log.every].append(run(phase, options.steps, log))
    for column, clock in enumerate(("wall-clock", "processor seconds")):
        watched = [run_seconds[column] for run_seconds in seconds[WATCHED.every]]
        unwatched = [run_seconds[column] for run_seconds in seconds[UNWATCHED.every]]
        ratios = sorted(a / b for a, b in zip(watched, unwatched, strict=True))
        step_ms = 1e3 * statistics.median(unwatched) / options.steps
        print(
            f"{clock}: ratio {statistics.median(ratios):.4f} (from {ratios[0]:.4f} to "
            f"{ratios[-1]:.4f}), {step_ms:.2f} ms a step without records"
        )


if __name__ == "__main__":
    main()
