"""Runs of a tiny arm, for tests of what is written down of a run."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.budget.accounting import Budget
from kdjax.config import CheckpointConfig, LogConfig, TrainConfig
from kdjax.parallel.layout import Layout
from kdjax.progress import Progress
from kdjax.training.outcome import Outcome
from kdjax.training.phase import price
from kdjax.training.program import Program
from kdjax.training.train import train
from kdjax.training.trainer import Trainer
from tests import tiny

STEPS = 6
EVALUATED = [3, 6]
TEACHER = tiny.SHALLOW_TEACHER


class Interrupted(Exception):
    pass


@functools.cache
def compiled() -> Program:
    """With a projection, so that every group of parameters has a gradient."""
    phase = tiny.phase("tinybert", dataclasses.replace(tiny.STUDENT, dropout=0.1), TEACHER)
    return Program(phase, tiny.SHAPE, Layout.of(devices=jax.devices()[:1]))


def run(
    directory: Path,
    log: LogConfig = LogConfig(every=1),
    stop_at: int | None = None,
    saves: float = tiny.AT_THE_END,
    **more: Any,
) -> Outcome:
    """A run, optionally interrupted after a step; the checkpoint it goes on from is then of the
    step before."""
    program = compiled()
    if stop_at is not None:
        saves = tiny.EVERY_STEP
    cost = price(program.phase, tiny.SHAPE)

    def watch(progress: Progress) -> None:
        if progress.ledger.steps == stop_at:
            raise Interrupted

    (outcome,) = train(
        Trainer(
            [
                tiny.compiled_phase(
                    program.phase,
                    program,
                    tiny.Batches(),
                    program.place_teacher(tiny.params(TEACHER, 9)),
                )
            ],
            Budget.flops(STEPS * cost.total),
            start=tiny.params(program.phase.student, 0),
            seed=0,
            config=TrainConfig(
                batch_size=8, checkpoint=CheckpointConfig(seconds=saves), log=log, evaluations=2
            ),
            directory=directory,
            evaluate=lambda params: {
                "mlm_loss": float(np.sum(params["embeddings"]["norm"]["scale"]))
            },
            watch=watch,
            **more,
        )
    )
    return outcome
