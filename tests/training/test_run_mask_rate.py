"""A masking rate over the budget: a pure function of the sequences seen, on the budget's own
shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger, schedule_phases
from kdjax.budget.price import Price
from kdjax.config import ArmConfig, BudgetConfig, Config, DataConfig
from kdjax.data.mask_rate import EqualSteps, MaskRate
from kdjax.errors import InputError
from kdjax.training.run_mask_rate import run_mask_rate

SEQ_LEN = 32
DATA = DataConfig(seq_len=SEQ_LEN, mlm_probability=0.15, mlm_probability_start=0.45)


def price_of(flops: int) -> Price:
    """Make the price of a step that is all the student's forward pass."""
    return Price(flops, flops, 0, 0, 0, 0, 0, 0)


def test_rate_goes_on_a_line_and_all_of_a_step_have_one() -> None:
    rate = MaskRate(0.3, 0.1, (EqualSteps(0, 4, 0.0, 0.25), EqualSteps(8, 2, 0.5, 0.125)))
    seen = np.array([0, 3, 4, 7, 8, 9, 10, 14])
    fractions = np.array([0, 0, 0.25, 0.25, 0.5, 0.5, 0.625, 0.875])
    np.testing.assert_allclose(rate.at_sequences(seen), 0.3 - 0.2 * fractions)
    # Any order and any part of them
    np.testing.assert_array_equal(rate.at_sequences(seen[::-3]), rate.at_sequences(seen)[::-3])
    # The last step of a budget may be a little short of its end, none lies beyond.
    assert rate.at_fraction(1.5) == pytest.approx(0.1)


@pytest.mark.parametrize("budget", [Budget.flops(10_000), Budget("tokens", 4096)])
def test_rate_follows_the_shares_that_the_ledger_shows(budget: Budget) -> None:
    prices = (price_of(90), price_of(310))
    tokens = (8 * SEQ_LEN, 4 * SEQ_LEN)
    upfront = {"mlm_probe": 500, "teacher_cache": 1_000}
    phases = list(zip((0.4, 1.0), prices, strict=True))
    spans = schedule_phases(budget, phases, tokens, upfront)
    rate = run_mask_rate(DATA, budget, spans, upfront)
    assert rate is not None

    # Walk through the run as its trainer does.
    ledger = Ledger.open(budget, 2, upfront)
    for number, span in enumerate(spans):
        for _ in range(span.steps):
            seen = ledger.padded_tokens // SEQ_LEN
            expected = rate.at_fraction(ledger.training_share)
            rows = seen + np.arange(span.tokens_per_step // SEQ_LEN)
            np.testing.assert_allclose(rate.at_sequences(rows), expected, rtol=1e-12)
            ledger = ledger.charge(number, span.price, span.tokens_per_step, 1, 0, 0)
    assert expected == pytest.approx(0.15, abs=0.02)


def test_recipe_without_a_start_has_no_rate_of_its_own() -> None:
    assert run_mask_rate(DataConfig(), Budget.flops(10), ()) is None


def test_slots_follow_from_the_highest_rate() -> None:
    assert DATA.max_predictions == 15
    falling = DataConfig(seq_len=SEQ_LEN, mlm_probability=0.45)
    assert falling.max_predictions == 15
    # Setting the rate alone moves them, as the price, which is that of the shapes.
    config = Config(data=DataConfig(seq_len=SEQ_LEN))
    changed = recipes.changed(config, {"data.mlm_probability_start": 0.45})
    assert batch_shape_of(changed).max_predictions == 15 > batch_shape_of(config).max_predictions
    with pytest.raises(InputError, match=r"mlm_probability_start 0\.45 of .*expected at least 14"):
        DataConfig(seq_len=SEQ_LEN, max_predictions=8, mlm_probability_start=0.45)


@pytest.mark.parametrize(
    ("arm", "changes", "message"),
    [
        ({"teacher": "cached"}, {}, "data.mlm_probability_start 0.45, expected 'online'"),
        ({}, {"budget": BudgetConfig(hours=1.0)}, "under budget.hours, expected budget.flops"),
    ],
)
def test_rate_is_refused_where_it_cannot_be_right(
    arm: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    defaults: dict[str, Any] = {"budget": BudgetConfig(flops=1e15)}
    data = DataConfig(mask_copies=2, mlm_probability_start=0.45)
    config = Config(data=data, arms={"logit": ArmConfig(**arm)}, **{**defaults, **changes})
    with pytest.raises(InputError, match=message):
        arms_of(config)


def test_values_that_are_no_rates_are_refused() -> None:
    for value in (1.0, -0.1):
        with pytest.raises(InputError, match=r"mlm_probability_start is .*expected a share"):
            DataConfig(mlm_probability_start=value)
