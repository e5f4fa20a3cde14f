"""Schedules of the learning rate: each rises, falls as its paper says, and ends with the budget."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import optax
import pytest

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.config import Config, OptimizerConfig
from kdjax.config.train import SCHEDULE_SETTINGS
from kdjax.errors import InputError
from kdjax.training.learning_rate import learning_rate
from tests.support import tiny

STEPS = 100
PEAK = 2.0


def rates(steps: int = STEPS, **settings: Any) -> np.ndarray:
    """Return the learning rate of each step of a budget, and of the one after the last."""
    config = OptimizerConfig(learning_rate=PEAK, **settings)
    shares = [(step / steps, (step + 1) / steps) for step in range(steps + 1)]
    return np.array([learning_rate(config, before, after) for before, after in shares])


def test_linear_schedule_warms_up_and_ends_with_budget() -> None:
    of_steps = rates(warmup=0.1)
    # The rate climbs over a tenth of the budget.
    assert of_steps[0] == pytest.approx(0.2)
    assert max(of_steps) == pytest.approx(of_steps[9]) == pytest.approx(of_steps[10])
    assert of_steps[10] == pytest.approx(PEAK)
    assert of_steps[99] == pytest.approx(PEAK / 90)
    assert of_steps[100] == 0.0
    # It only rises, then only falls.
    assert all(a < b for a, b in itertools.pairwise(of_steps[:10]))
    assert all(a > b for a, b in itertools.pairwise(of_steps[10:]))


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_schedule_equals_that_of_optax(floor: float) -> None:
    expected = optax.cosine_decay_schedule(PEAK, 80, alpha=floor)
    of_steps = rates(warmup=0.2, schedule="cosine", min_lr_ratio=floor)
    np.testing.assert_allclose(of_steps[20:], [expected(n) for n in range(81)], atol=1e-6)
    np.testing.assert_allclose(of_steps[:20], PEAK * np.arange(1, 21) / 20)


@pytest.mark.parametrize(
    ("shape", "floor", "expected"),
    [
        ("linear", 0.0, lambda t: 1 - t),
        ("linear", 0.2, lambda t: 1 - 0.8 * t),
        ("sqrt", 0.0, lambda t: 1 - math.sqrt(t)),
        ("cosine", 0.0, lambda t: math.cos(math.pi * t / 2) ** 2),
        ("exponential", 0.1, lambda t: 0.1**t),
    ],
)
def test_wsd_stays_at_peak_and_falls_at_end(shape: Any, floor: float, expected: Any) -> None:
    of_steps = rates(warmup=0.1, schedule="wsd", decay=0.2, decay_shape=shape, min_lr_ratio=floor)
    assert np.all(of_steps[10:80] == PEAK)
    decay = [PEAK * expected(n / 20) for n in range(21)]
    np.testing.assert_allclose(of_steps[80:], decay, atol=1e-12)
    assert of_steps[-1] == pytest.approx(PEAK * floor, abs=1e-12)


def test_trunk_of_wsd_is_the_same_for_budgets_of_any_length() -> None:
    short = OptimizerConfig(schedule="wsd", warmup=0.1, decay=0.2)
    # Twice the budget, and a warm-up of as many steps.
    long = OptimizerConfig(schedule="wsd", warmup=0.05, decay=0.2)
    assert short.decay_start == 0.8
    trunk = int(short.decay_start * 50)
    for step in range(trunk):
        of_short = learning_rate(short, step / 50, (step + 1) / 50)
        assert of_short == pytest.approx(learning_rate(long, step / 100, (step + 1) / 100))
    # From there on the short one falls.
    assert learning_rate(short, 41 / 50, 42 / 50) < short.learning_rate


def test_decay_of_whole_budget_is_linear_schedule() -> None:
    everything = rates(warmup=0.25, schedule="wsd", decay=0.75)
    np.testing.assert_array_equal(everything, rates(warmup=0.25))


def test_schedule_without_warmup_begins_at_peak() -> None:
    for schedule in ("linear", "cosine", "wsd"):
        assert rates(warmup=0.0, schedule=schedule)[0] == PEAK


def test_schedule_changes_neither_program_nor_price() -> None:
    wsd = tiny.phase(
        schedule="wsd", decay=0.3, decay_shape="sqrt", min_lr_ratio=0.1, warmup_budget=1e12
    )
    assert wsd.compile_key == tiny.phase().compile_key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "train.optimizer: schedule is 'cosin', expected linear or"),
        ({"name": "lion"}, "train.optimizer: name is 'lion', expected adamw or muon"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "warmup is 0.5 and decay 0.6, expected"),
        ({"schedule": "wsd", "decay_shape": "exponential"}, "min_lr_ratio is 0 and decay_shape"),
    ],
)
def test_schedule_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    # An arm's own settings are checked as the recipe's are.
    own = {f"train.optimizer.{name}": value for name, value in settings.items()}
    if "schedule" in settings and "warmup" in settings:
        with pytest.raises(InputError, match=message):
            recipes.changed(Config(), own)
    with pytest.raises(InputError, match=message.removeprefix("train.optimizer: ")):
        tiny.arm(**settings)


def test_warm_up_of_its_own_budget_is_refused_under_hours() -> None:
    own = {"arms": {"scratch": {}}, "budget.hours": 1.0, "train.optimizer.warmup_budget": 1e12}
    with pytest.raises(InputError, match=r"optimizer\.warmup_budget is 1e\+12 under budget\.hours"):
        arms_of(recipes.changed(Config(), own))


def test_settings_of_an_optimizer_are_each_of_the_schedule_or_of_the_compiled_step() -> None:
    of_step = [
        "name",
        "weight_decay",
        "b1",
        "b2",
        "eps",
        "clip",
        "momentum",
        "nesterov",
        "ns_steps",
        "muon_lr_scale",
        "consistent_rms",
    ]
    names = [field.name for field in dataclasses.fields(OptimizerConfig)]
    assert sorted([*SCHEDULE_SETTINGS, *of_step]) == sorted(names)
