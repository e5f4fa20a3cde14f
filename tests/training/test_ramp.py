"""A batch ramp: stretches with batches of their own, each at its own price, over one stream of
sequences."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import pytest

from kdjax.budget.accounting import Budget
from kdjax.config import (
    ArmConfig,
    OptimizerConfig,
    PhaseConfig,
    RampConfig,
    TermConfig,
    TrainConfig,
)
from kdjax.errors import InputError
from kdjax.parallel.layout import Layout
from kdjax.training.arm import Arm, resolve
from kdjax.training.outcome import Outcome
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price
from kdjax.training.program import program_of
from tests.support import tiny, trainers

RAMP = (RampConfig(0.25, 2), RampConfig(0.5, 4))
BUDGET = Budget("tokens", 20 * tiny.SHAPE.tokens_per_step)


@functools.cache
def arm() -> Arm:
    return resolve(
        "scratch",
        ArmConfig(),
        tiny.SHALLOW_STUDENT,
        tiny.SHALLOW_TEACHER,
        OptimizerConfig(learning_rate=1e-2),
    )


class Seen(tiny.Batches):
    """Batches that note from which sequence on they are asked."""

    def __init__(self, shape: BatchShape, asked: list[tuple[int, int]]) -> None:
        super().__init__(shape=shape)
        self._asked = asked

    def iterate(self, seen: int, rows: Any = slice(None)) -> Any:
        self._asked.append((seen, self.shape.batch_size))
        return super().iterate(seen, rows)


def run(
    directory: Path, ramp: tuple[RampConfig, ...], asked: list[tuple[int, int]] | None = None
) -> Outcome:
    asked = [] if asked is None else asked
    phases = []
    for phase in arm().ramped(ramp).phases:
        shape = phase.batch_shape(tiny.SHAPE)
        program = program_of(phase, shape, Layout.from_config(devices=jax.devices()[:1]))
        phases.append(tiny.compiled_phase(phase, program, Seen(shape, asked)))
    return trainers.train_one(directory, phases, BUDGET)


def test_ramp_of_one_batch_size_keeps_params_bitwise(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", ())
    ramped = run(tmp_path / "ramped", (RampConfig(0.25, 8), RampConfig(0.5, 8)))
    assert ramped.params_sha256 == plain.params_sha256
    # Spans of 5, 5 and 10 steps have prices of their own, and all else is one run's.
    assert ramped.ledger.steps_by_phase == (5, 5, 10)
    assert dataclasses.replace(
        ramped.ledger, steps_by_phase=(20,), seconds={}, step_seconds=0.0
    ) == dataclasses.replace(plain.ledger, seconds={}, step_seconds=0.0)


def test_ramp_charges_each_stretch_at_its_price(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    ledger = run(tmp_path, RAMP, asked).ledger
    # Half a batch's share at a quarter of its size is twice as many steps.
    assert ledger.steps_by_phase == (20, 10, 10)
    # Each stretch goes on where the one before left the stream.
    assert asked == [(0, 2), (40, 4), (80, 8)]
    assert ledger.padded_tokens == BUDGET.amount
    phases = arm().ramped(RAMP).phases
    flops = sum(
        n * price(phase, phase.batch_shape(tiny.SHAPE)).total
        for n, phase in zip(ledger.steps_by_phase, phases, strict=True)
    )
    assert sum(ledger.spent.values()) == flops


def test_ramp_and_phases_split_budget() -> None:
    terms = (TermConfig("mlm"),)
    config = ArmConfig(phases=(PhaseConfig(terms, 0.4), PhaseConfig((*terms, TermConfig("logit")))))
    resolved = resolve("mine", config, tiny.STUDENT, tiny.TEACHER, OptimizerConfig()).ramped(RAMP)
    # Borders of phases and of the ramp both split the run.
    assert [
        (phase.until, phase.batch_size, phase.teacher_config is None) for phase in resolved.phases
    ] == [
        (0.25, 2, True),
        (0.4, 4, True),
        (0.5, 4, False),
        (1.0, None, False),
    ]


def test_descending_ramp_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"train.batch_ramp ends at \[0.5, 0.25\], expected ascending shares"
    ):
        TrainConfig(batch_ramp=RAMP[::-1])
    with pytest.raises(InputError, match=r"train.batch_ramp: until is 1.0, expected a share"):
        RampConfig(1.0, 2)
