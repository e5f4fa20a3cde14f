"""Budgets of a rehearsal buy each arm and phase its steps, whatever is charged before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    BudgetConfig,
    Config,
    HeadConfig,
    OptimizerConfig,
    PretrainingConfig,
    TrainConfig,
)
from kdjax.dry_run.recipe_prices import prices
from kdjax.rehearsal.budgets import SECONDS, STEPS, steps_of, with_budgets
from kdjax.rehearsal.scale import Inputs, scale_recipe

ARMS = {"scratch": ArmConfig(), "two_stage": ArmConfig()}


def budgeted(config: Config, *, teacher: Path | None = Path("teacher")) -> Config:
    """Scale a recipe and give it its budgets."""
    return with_budgets(scale_recipe(config, Inputs(Path("text"), teacher)), 0, config.budget)


def steps_of_phases(config: Config) -> dict[str, list[int]]:
    return {name: [phase["steps"] for phase in phases] for name, phases in prices(config).items()}


def test_every_arm_takes_its_steps_and_every_phase_two() -> None:
    config = Config(arms=ARMS, budget=BudgetConfig(flops=1e18))
    steps = steps_of_phases(budgeted(config))
    assert min(sum(of_arm) for of_arm in steps.values()) >= STEPS
    assert min(steps["two_stage"]) >= 2


def test_teachers_training_is_charged_and_leaves_the_steps() -> None:
    training = PretrainingConfig(budget=1e18, checkpoints=(0.125, 1.0))
    config = Config(arms=ARMS, budget=BudgetConfig(flops=1e18, teacher="both"))
    config = replace(config, teacher=replace(config.teacher, train=training))
    smaller = budgeted(config, teacher=None)
    # Its first checkpoint, at an eighth, comes after two steps or more.
    assert smaller.teacher.train.budget > 0
    assert sum(steps_of_phases(smaller)["two_stage"]) >= STEPS


def test_head_gets_four_steps_and_tokens_stay_tokens() -> None:
    config = Config(arms={"logit": ArmConfig()}, budget=BudgetConfig(tokens=1e9))
    config = replace(config, teacher=replace(config.teacher, head=HeadConfig(budget=1e15)))
    smaller = budgeted(config)
    assert 0 < smaller.teacher.head.budget < 1e15
    tokens = smaller.train.batch_size * smaller.data.seq_len
    assert smaller.budget == BudgetConfig(tokens=float(STEPS * tokens))


def test_hours_become_seconds_by_the_same_clock() -> None:
    clock = ("compute", "checkpoint")
    budget = BudgetConfig(hours=24.0, clock=clock)
    smaller = budgeted(Config(arms={"scratch": ArmConfig()}, budget=budget))
    assert smaller.budget == BudgetConfig(hours=SECONDS / 3600, clock=clock)


def test_phase_that_is_a_small_share_still_has_two_steps() -> None:
    arm = arms_of(Config(arms={"two_stage": ArmConfig()}))["two_stage"]
    first, second = arm.phases
    short = replace(arm, phases=(replace(first, until=0.05), second))
    assert steps_of(short) == 40


def test_budget_of_the_warm_up_shrinks_with_the_runs() -> None:
    optimizer = OptimizerConfig(warmup_budget=5e17)
    train = TrainConfig(optimizer=optimizer)
    config = Config(arms={"scratch": ArmConfig()}, budget=BudgetConfig(flops=1e18), train=train)
    smaller = budgeted(config)
    assert smaller.train.optimizer.warmup_budget == pytest.approx(smaller.budget.flops / 2)
