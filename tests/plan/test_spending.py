"""Properties of what a budget buys: never more than it pays for, never less for more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.arms.charges import calibration_charge
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.budget.price import Price
from kdjax.config import StartConfig
from kdjax.plan.spending import Spending
from tests.sweep.sweeps import recipe

CONFIG = recipe()
ARM = arms_of(CONFIG)["logit"]
STUDENT = 60
TEACHER = 40
PRICE = Price(100, 20, 30, TEACHER, 5, 5, jaxpr_matmul=0, jaxpr_elementwise=0)
STEP = {"nothing": STUDENT, "inference": STUDENT + TEACHER}
"""FLOPs of a step that a budget pays for, by the way to pay for the teacher."""
FILL = 0.5


def spending(unique: float = math.inf) -> Spending:
    return Spending(ARM, (PRICE,), CONFIG, FILL, unique)


@given(st.integers(1, 10**6), st.sampled_from(sorted(STEP)))
def test_budget_buys_the_whole_steps_that_it_pays_for(flops: int, case: str) -> None:
    steps = flops // STEP[case]
    bought = spending().bought(flops, case)
    if not steps:
        assert bought is None
        return
    assert bought is not None
    assert bought.steps == steps
    assert bought.tokens == steps * batch_shape_of(CONFIG).tokens_per_step * FILL


def test_calibration_of_a_pruned_start_leaves_less_where_the_teacher_is_paid_for() -> None:
    start = StartConfig("teacher", "lower", cut="prune", calibration_sequences=1)
    pruned = replace(ARM, config=replace(ARM.config, start=start))
    (flops,) = calibration_charge(CONFIG, pruned).values()
    arm = Spending(pruned, (PRICE,), CONFIG, FILL, math.inf)
    budget = flops + 7 * STEP["inference"]
    paid = arm.bought(budget, "inference")
    assert paid is not None
    assert paid.steps == 7
    free = arm.bought(budget, "nothing")
    assert free is not None
    assert free.steps == budget // STUDENT


@given(st.integers(100, 10**6), st.integers(0, 10**6), st.sampled_from(sorted(STEP)))
def test_larger_budget_buys_no_fewer_tokens(flops: int, more: int, case: str) -> None:
    arm = spending()
    assert arm.tokens(flops + more, case) >= arm.tokens(flops, case)


@given(st.integers(100, 10**6), st.integers(1, 10**6))
def test_repeated_tokens_count_for_no_more_than_new_ones(flops: int, unique: int) -> None:
    repeated = spending(unique).bought(flops, "inference")
    fresh = spending().bought(flops, "inference")
    assert repeated is not None
    assert fresh is not None
    assert repeated.tokens == fresh.tokens
    assert repeated.effective_tokens <= fresh.effective_tokens
    assert repeated.epochs == pytest.approx(repeated.tokens / unique)
    assert fresh.epochs is None
