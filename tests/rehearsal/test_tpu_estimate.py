"""Hours and costs of a recipe before anything is rented."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdjax.config import ArmConfig, BudgetConfig, Config, HeadConfig, PretrainingConfig
from kdjax.errors import InputError
from kdjax.rehearsal import tpu_estimate

TWO_ARMS = {"scratch": ArmConfig(), "logit": ArmConfig()}


def test_hours_and_cost_follow_from_budget_peak_share_and_price() -> None:
    config = Config(arms=TWO_ARMS, budget=BudgetConfig(flops=1e18), seeds=(0, 1, 2))
    work = tpu_estimate.work_of(config)
    assert (work.runs, work.training, work.task_steps) == (6, 6e18, 0)
    v5e, v6e, v5p = tpu_estimate.stated_estimates(work, {"v6e": 0.5}, {"v5e": 1.2})
    # 8 chips of 197 TFLOP/s at 60%; 8 of 918 at 50%; 4 of 459 at 60%.
    assert v5e.hours == pytest.approx(6e18 / (8 * 197e12 * 0.6) / 3600)
    assert v6e.hours == pytest.approx(6e18 / (8 * 918e12 * 0.5) / 3600)
    assert v5p.hours == pytest.approx(6e18 / (4 * 459e12 * 0.6) / 3600)
    assert v5e.cost == pytest.approx(8 * 1.2 * 6e18 / (8 * 197e12 * 0.6) / 3600)
    assert v6e.cost is None
    lines = tpu_estimate.lines_of(work, [v5e, v6e, v5p])
    assert lines[0] == "the recipe itself: 6 runs, 6e+18 FLOPs of training"
    assert "at 60% of the peak (assumed)" in lines[1]
    assert "at 1.2 a chip-hour" in lines[1]
    assert "at 50% of the peak (as stated)" in lines[2]


def test_teachers_are_counted_by_their_budgets() -> None:
    config = Config(arms=TWO_ARMS, budget=BudgetConfig(flops=1e18))
    trained = PretrainingConfig(budget=1e17, seeds=(0, 1))
    of_here = replace(config, teacher=replace(config.teacher, train=trained))
    assert tpu_estimate.work_of(of_here).teacher == 2e17
    fitted = replace(config, teacher=replace(config.teacher, head=HeadConfig(budget=3e15)))
    assert tpu_estimate.work_of(fitted).teacher == 3e15


def test_hours_by_the_clock_are_the_runs_hours_on_any_chip() -> None:
    config = Config(arms=TWO_ARMS, budget=BudgetConfig(hours=4.0), seeds=(0,))
    work = tpu_estimate.work_of(config)
    assert (work.hours, work.training) == (8.0, None)
    hours = [each.hours for each in tpu_estimate.stated_estimates(work, {}, {})]
    assert hours == [8.0] * 3


def test_steps_of_fine_tuning_take_their_time_however_fast_the_chips() -> None:
    work = tpu_estimate.Work(1, 1e18, None, 0.0, tasks=1e12, task_steps=720_000, unknown=())
    assert work.hours_at(1e30) == pytest.approx(1.0)
    # Where their FLOPs take longer, those count.
    large = replace(work, tasks=3.6e18)
    assert large.hours_at(1e15) == pytest.approx((1e18 + 3.6e18) / 1e15 / 3600)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["v5e"], "--price is 'v5e', expected a number after ="),
        (["v5e=much"], "--price is 'v5e=much', expected a number after ="),
        (["v5=1"], "--price is 'v5=1', expected CHIP=NUMBER with one of v5e, v6e, v5p"),
        (["v5e=0"], "--price is 'v5e=0', expected more than 0, at most 1"),
        (["v5e=nan"], "--price is 'v5e=nan', expected more than 0"),
        (["v5e=0.1", "v5e=0.2"], "--price names v5e twice, expected each chip once"),
    ],
)
def test_number_by_chip_that_cannot_be_is_refused(words: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match="^" + complaint.replace("'", ".")):
        tpu_estimate.parse_by_chip(words, "--price", 0, 1)
