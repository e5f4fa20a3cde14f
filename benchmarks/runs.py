"""Whole training runs, as the benchmarks that time the training loop start them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import LogConfig, OptimizerConfig, TrainConfig
from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches
from kdjax.data.masking import MaskSettings
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.phase import BatchShape
from kdjax.training.run_spec import RunSpec

MLM_PROBABILITY = 0.15


def training_batches(corpus: Corpus, shape: BatchShape, seed: int = 0) -> Batches:
    """Return the batches of a corpus' training split."""
    return Batches(
        corpus,
        "train",
        batch_size=shape.batch_size,
        seed=seed,
        mask_settings=MaskSettings(MLM_PROBABILITY, shape.max_predictions),
    )


def run_spec(
    phase: CompiledPhase,
    flops: float,
    params: Mapping[str, Any],
    directory: Path,
    *,
    batch_size: int,
    seed: int = 0,
    log: LogConfig = LogConfig(),
    optimizer: OptimizerConfig = OptimizerConfig(),
    **options: Any,
) -> RunSpec:
    """Return a run of one phase that is evaluated at its end alone.

    Args:
        phase: the compiled phase with what it reads.
        flops: budget of the run.
        params: the student's parameters at the start.
        directory: where the run keeps its files.
        batch_size: sequences of a step.
        seed: seed of the run.
        log: what is recorded.
        optimizer: settings of the optimizer.
        options: other arguments of `RunSpec`.
    """
    # Evaluations on the way would be timed as well.
    config = TrainConfig(batch_size=batch_size, optimizer=optimizer, log=log, evaluations=1)
    return RunSpec(
        [phase],
        Budget.flops(flops),
        start=params,
        seed=seed,
        config=config,
        directory=directory,
        **options,
    )


def loop_seconds(ledger: Ledger) -> float:
    """Return the seconds that a run's steps took by its own clock, waiting for input included."""
    return ledger.seconds["compute"] + ledger.seconds["input"]
