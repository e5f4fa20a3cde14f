"""Runs of tiny models, for tests of what a run does and survives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kdjax.budget.accounting import Budget
from kdjax.config import CheckpointConfig, LogConfig, TrainConfig
from kdjax.parallel.host_sums import HostSignals
from kdjax.progress import Progress
from kdjax.training import loop
from kdjax.training.checkpoints.policy import CheckpointPolicy
from kdjax.training.checkpoints.storage import KEEP
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.outcome import Outcome
from kdjax.training.run_spec import RunSpec
from kdjax.training.train import train
from tests.support import tiny


class Interrupted(Exception):
    """Raised to end a run in the middle, as a kill does."""


def bias_sum(params: Any) -> dict[str, float]:
    """Return a figure that stands for a held-out loss."""
    return {"mlm_loss": float(np.sum(params["mlm"]["bias"]))}


class LastBefore(CheckpointPolicy):
    """A policy that saves after every step of a stretch that begins late.

    A save takes as long as many steps of a tiny model.

    Attributes:
        first: step after which it saves first, counted from where the process began.
    """

    def __init__(self, first: int) -> None:
        super().__init__(tiny.EVERY_STEP)
        self._first = first
        self._steps = 0

    def signals(self) -> HostSignals:
        """Return the requests of this process; it is asked once a step."""
        self._steps += 1
        if self._steps >= self._first:
            return super().signals()
        return HostSignals(False, 0)


@contextmanager
def saving_last_before(step: int) -> Iterator[None]:
    """Save, in runs that end at a step, the checkpoints that would be left had each step saved."""
    with mock.patch.object(loop, "CheckpointPolicy", lambda seconds: LastBefore(step - KEEP)):
        yield


def interrupting(step: int | None) -> Callable[[Progress], None]:
    """Return a watcher that ends the run after a step; None: it does not."""

    def watch(progress: Progress) -> None:
        if progress.ledger.steps == step:
            raise Interrupted

    return watch


def run_spec(
    directory: Path,
    compiled_phases: Sequence[CompiledPhase],
    budget: Budget,
    *,
    stop_at: int | None = None,
    evaluations: int = 3,
    log: LogConfig = LogConfig(every=1),
    checkpoint: CheckpointConfig | None = None,
    **settings: Any,
) -> RunSpec:
    """Return a run, ready to be trained.

    Args:
        directory: directory of the run.
        compiled_phases: the run's phases.
        budget: what it may spend.
        stop_at: step after which it is interrupted.
        evaluations: evenly spaced evaluations.
        log: what is written down.
        checkpoint: when it saves; None: as `tiny.saving`.
        settings: further arguments of `RunSpec`, or others than those made here.
    """
    config = TrainConfig(
        batch_size=tiny.SHAPE.batch_size,
        checkpoint=checkpoint or tiny.saving(stop_at),
        log=log,
        evaluations=evaluations,
    )
    defaults: dict[str, Any] = {
        "start": tiny.params(compiled_phases[0].phase.student_config, 0),
        "seed": 0,
        "config": config,
        "directory": directory,
        "watch": interrupting(stop_at),
    }
    return RunSpec(compiled_phases, budget, **{**defaults, **settings})


def train_one(*args: Any, stop_at: int | None = None, **settings: Any) -> Outcome:
    """Train a run (`run_spec`), and return what it came to."""
    with nullcontext() if stop_at is None else saving_last_before(stop_at):
        return train(run_spec(*args, stop_at=stop_at, **settings))[0]
