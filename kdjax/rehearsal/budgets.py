"""Budgets of a rehearsal: a few steps of every arm, of its teacher, and of a head."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

from kdjax.arms.charges import upfront_charges
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.arms.teacher_cost import cost_by_recipe
from kdjax.budget.accounting import CASES
from kdjax.config import BudgetConfig, Config, TeacherConfig
from kdjax.models import zoo
from kdjax.training.arm import Arm
from kdjax.training.phase_price import price
from kdjax.training.teacher.head import head_phase
from kdjax.training.teacher.pretraining import pretraining_price

STEPS = 12
"""Steps of the dearest arm, at least."""
SECONDS = 20.0
"""A run's share of the clock, under a budget of hours."""
ENOUGH = 1e18
"""A budget that buys any step of a scaled recipe, in FLOPs."""


def with_budgets(config: Config, train_sequences: int, recipe: BudgetConfig) -> Config:
    """Give a scaled recipe budgets that buy a few steps of each phase.

    Args:
        config: scaled recipe, from `kdjax.rehearsal.scale.scale_recipe`.
        train_sequences: training sequences of its corpus.
        recipe: budget of the recipe that it was scaled from.

    Raises:
        InputError: an arm that these models do not allow.
    """
    config = replace(config, budget=_amount(recipe, ENOUGH))
    config = replace(config, teacher=_teacher_budgets(config))
    arms = arms_of(config)
    if recipe.kind == "hours":
        return replace(config, budget=replace(recipe, hours=SECONDS / 3600))
    needed = max(_needed(config, arms, arm, train_sequences) for arm in arms.values())
    amount = float(needed)
    config = _with_warmup(config, amount / getattr(recipe, recipe.kind))
    return replace(config, budget=_amount(recipe, amount))


def _with_warmup(config: Config, ratio: float) -> Config:
    """Scale the budget that the warm-up is a share of, where the recipe names one.

    Args:
        config: scaled recipe.
        ratio: its budget over the recipe's.
    """
    optimizer = config.train.optimizer
    optimizer = replace(optimizer, warmup_budget=ratio * optimizer.warmup_budget)
    arms = {}
    for name, arm in config.arms.items():
        settings = dict(arm.optimizer)
        if "warmup_budget" in settings:
            settings["warmup_budget"] = ratio * settings["warmup_budget"]
        arms[name] = replace(arm, optimizer=settings)
    return replace(config, arms=arms, train=replace(config.train, optimizer=optimizer))


def _amount(recipe: BudgetConfig, amount: float) -> BudgetConfig:
    """Return the recipe's budget with another amount of the same kind."""
    if recipe.kind == "hours":
        return recipe
    setting: dict[str, Any] = {recipe.kind: amount}
    return replace(recipe, **setting)


def _needed(config: Config, arms: dict[str, Arm], arm: Arm, train_sequences: int) -> int:
    """Compute the budget that buys an arm its steps, in the budget's unit."""
    steps = steps_of(arm)
    batch_shape = batch_shape_of(config)
    shapes = [phase.batch_shape(batch_shape) for phase in arm.phases]
    if config.budget.kind == "tokens":
        return steps * max(shape.tokens_per_step for shape in shapes)
    teacher_cost = None
    if arm.needs_teacher and "teacher_training" in CASES[config.budget.teacher]:
        teacher_cost = cost_by_recipe(config)
    upfront = upfront_charges(config, arms, arm, train_sequences, teacher_cost)
    prices = [price(phase, shape) for phase, shape in zip(arm.phases, shapes, strict=True)]
    # What is charged before the first step is part of the first phase's share of the budget.
    before = math.ceil(sum(upfront.values()) / arm.phases[0].until)
    return before + steps * max(step_price.total for step_price in prices)


def steps_of(arm: Arm) -> int:
    """Return the steps that give each phase of an arm two of them."""
    begin = 0.0
    steps = STEPS
    for phase in arm.phases:
        steps = max(steps, math.ceil(2 / (phase.until - begin)))
        begin = phase.until
    return steps


def _teacher_budgets(config: Config) -> TeacherConfig:
    """Return the teacher with budgets of a few steps, and what it cost before, as little."""
    teacher = config.teacher
    architecture = zoo.resolve(teacher.architecture)
    if teacher.train.budget:
        # Two steps between checkpoints.
        shares = (0.0, *teacher.train.checkpoints)
        gaps = [after - before for before, after in pairwise(shares)]
        steps = max(STEPS, math.ceil(2 / min(gaps)))
        batch_shape = batch_shape_of(config, teacher.train.batch_size)
        step = pretraining_price(architecture, teacher.train, batch_shape).total
        return replace(teacher, train=replace(teacher.train, budget=float(steps * step)))
    if teacher.head.budget:
        batch_shape = batch_shape_of(config, teacher.head.batch_size)
        step = price(head_phase(architecture, teacher.head), batch_shape).total
        teacher = replace(teacher, head=replace(teacher.head, budget=float(4 * step)))
    # A stand-in has no card that says what its training cost.
    is_charged = "teacher_training" in CASES[config.budget.teacher]
    if teacher.training_flops or (is_charged and teacher.source):
        # As large beside a step as that of a small model: a few of them.
        batch_shape = batch_shape_of(config)
        step = pretraining_price(architecture, teacher.train, batch_shape).total
        teacher = replace(teacher, training_flops=float(4 * step))
    return teacher
