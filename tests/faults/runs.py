"""A run of six steps for tests of what it survives."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from kdjax.budget import journal
from kdjax.budget.accounting import Budget
from kdjax.config import CheckpointConfig, LogConfig
from kdjax.parallel.layout import Layout
from kdjax.training.outcome import Outcome
from kdjax.training.phase_price import price
from kdjax.training.program import Program
from tests.support import metrics, tiny, trainers

STEPS = 6


@functools.cache
def compiled() -> Program:
    return Program(
        tiny.phase(student=tiny.SHALLOW_STUDENT),
        tiny.SHAPE,
        Layout.from_config(devices=jax.devices()[:1]),
    )


def run(
    directory: Path,
    watch: Callable[[int], None] = lambda step: None,
    warn: Callable[[str], None] = lambda line: None,
    **checkpoint: Any,
) -> Outcome:
    """Train a run that saves after every step; `watch` is called with the step before while a step
    is computed."""
    program = compiled()
    return trainers.train_one(
        directory,
        [tiny.compiled_phase(program.phase, program, tiny.Batches())],
        Budget.flops(STEPS * price(program.phase, tiny.SHAPE).total),
        checkpoint=CheckpointConfig(**{"seconds": 0.0, **checkpoint}),
        log=LogConfig(every=1, tensorboard=False),
        evaluate=trainers.bias_sum,
        watch=lambda progress: watch(progress.ledger.steps),
        warn=warn,
    )


@functools.cache
def straight(directory: Path) -> Outcome:
    """Train the run without a fault."""
    return run(directory)


def check_same(outcome: Outcome, directory: Path, straight_directory: Path) -> None:
    """Assert the same parameters, account, curve and metrics as without the fault, and a journal
    whose hashes hold."""
    expected = straight(straight_directory)
    assert outcome.params_sha256 == expected.params_sha256
    assert outcome.ledger.spent == expected.ledger.spent
    assert outcome.ledger.tokens == expected.ledger.tokens
    assert outcome.curve == expected.curve
    assert metrics.same_each_time(directory) == metrics.same_each_time(straight_directory)
    entries = journal.read(directory / "ledger.jsonl")
    assert entries[-1]["sha256"] == outcome.journal_sha256
    saved = [json.dumps(entry["ledger"]) for entry in entries if entry["event"] != "restart"]
    assert all(
        json.dumps(entry["ledger"]) in saved for entry in entries if entry["event"] == "restart"
    )
