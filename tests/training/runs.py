"""Runs of a tiny arm, for tests of what is written down of a run."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.budget.accounting import Budget
from kdjax.config import LogConfig
from kdjax.parallel.layout import Layout
from kdjax.training.outcome import Outcome
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from tests.support import tiny, trainers

STEPS = 6
EVALUATED = [3, 6]
TEACHER = tiny.SHALLOW_TEACHER


@functools.cache
def compiled() -> Program:
    """Compile a phase with a projection, so that every group of parameters has a gradient."""
    phase = tiny.phase("tinybert", dataclasses.replace(tiny.STUDENT, dropout=0.1), TEACHER)
    return Program(phase, tiny.SHAPE, Layout.from_config(devices=jax.devices()[:1]))


def scale_sum(params: Any) -> dict[str, float]:
    return {"mlm_loss": float(np.sum(params["embeddings"]["norm"]["scale"]))}


def run(
    directory: Path,
    log: LogConfig = LogConfig(every=1),
    stop_at: int | None = None,
    **settings: Any,
) -> Outcome:
    """Train a run, which may be interrupted after a step; the checkpoint it goes on from is then of
    the step before."""
    program = compiled()
    teacher = program.place_teacher(tiny.params(TEACHER, 9))
    return trainers.train_one(
        directory,
        [tiny.compiled_phase(program.phase, program, tiny.Batches(), teacher)],
        Budget.flops(STEPS * price(program.phase, tiny.SHAPE).total),
        stop_at=stop_at,
        evaluations=2,
        log=log,
        evaluate=scale_sum,
        **settings,
    )
