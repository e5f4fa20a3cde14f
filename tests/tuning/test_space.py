"""The space of a tuning: settings that an arm has, and values that they can have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from kdjax.arms.recipe_arms import arms_of
from kdjax.config import (
    ArmConfig,
    BudgetConfig,
    Config,
    DataConfig,
    ModelSpec,
    RangeConfig,
    TeacherConfig,
    TuneConfig,
)
from kdjax.errors import InputError
from kdjax.tuning.space import distributions_of, edge_of, with_settings
from tests.support import small_study

CONFIG = Config(
    data=DataConfig(seq_len=16, max_predictions=3),
    student=ModelSpec(**small_study.STUDENT),
    teacher=TeacherConfig(architecture=ModelSpec(**small_study.TEACHER)),
    arms={
        "scratch": ArmConfig(),
        "own": ArmConfig(preset="scratch", optimizer={"learning_rate": 1.0, "b1": 0.8}),
    },
    budget=BudgetConfig(flops=1e9),
)


def space(values: str) -> dict[str, Any]:
    """Return the distributions of a `tune.space` as a recipe has it."""
    ranges = {name: RangeConfig(**fields) for name, fields in yaml.safe_load(values).items()}
    return distributions_of(replace(CONFIG, tune=TuneConfig(trials=1, space=ranges)))


def test_range_has_the_type_of_its_setting() -> None:
    distributions = space(
        "{optimizer.learning_rate: {low: 0.001, high: 0.1, log: true}, student.dropout: {low: 0, "
        "high: 0.5}, "
        "student.layers: {low: 1, high: 4}}"
    )
    assert distributions == {
        "optimizer.learning_rate": FloatDistribution(0.001, 0.1, log=True),
        "student.dropout": FloatDistribution(0.0, 0.5),
        "student.layers": IntDistribution(1, 4),
    }


def test_choices_have_the_type_of_their_setting() -> None:
    distributions = space(
        "{student.norm: {choices: [pre, post]}, student.dropout: {choices: [0, 0.1]}}"
    )
    assert distributions == {
        "student.dropout": CategoricalDistribution((0.0, 0.1)),
        "student.norm": CategoricalDistribution(("pre", "post")),
    }
    # Equal numbers of another type would pass the comparison above.
    choices = distributions["student.dropout"].choices
    assert [type(choice) for choice in choices] == [float, float]


def test_optimiser_its_schedule_and_regularisers_can_be_tuned_by_arm() -> None:
    distributions = space(
        "{optimizer.name: {choices: [adamw, muon]}, optimizer.schedule: {choices: [linear, "
        "cosine, wsd]}, optimizer.weight_decay: {low: 0.001, high: 1, log: true}, "
        "optimizer.min_lr_ratio: {low: 0, high: 0.2}, student.attention_dropout: {choices: [0, "
        "0.1]}, optimizer.ns_steps: {low: 3, high: 6}}"
    )
    assert distributions["optimizer.name"] == CategoricalDistribution(("adamw", "muon"))
    assert distributions["optimizer.weight_decay"] == FloatDistribution(0.001, 1.0, log=True)
    assert distributions["optimizer.ns_steps"] == IntDistribution(3, 6)
    # What a trial tries is the arm's own, and reaches its phases.
    settings = {"optimizer.name": "muon", "optimizer.weight_decay": 0.3, "student.dropout": 0.2}
    tuned = with_settings(CONFIG.arms["own"], settings)
    (phase,) = arms_of(replace(CONFIG, arms={"own": tuned}))["own"].phases
    assert (phase.optimizer.name, phase.optimizer.weight_decay) == ("muon", 0.3)
    assert (phase.optimizer.b1, phase.student_config.dropout) == (0.8, 0.2)


def test_order_of_settings_in_the_recipe_does_not_matter() -> None:
    dropout = "student.dropout: {low: 0, high: 0.5}"
    decay = "optimizer.weight_decay: {low: 0, high: 1}"
    assert list(space(f"{{{dropout}, {decay}}}")) == list(space(f"{{{decay}, {dropout}}}"))


REFUSED = [
    ("{}", r"tune.space is empty"),
    (
        "{optimizer.learning_rat: {low: 1, high: 2}}",
        r"unknown setting 'optimizer.learning_rat' \(did you mean 'optimizer.learning_rate'\?\)",
    ),
    (
        "{learning_rate: {low: 1, high: 2}}",
        r"unknown setting 'learning_rate' .*optimizer.learning_rate",
    ),
    (
        "{finetune.steps: {low: 1, high: 2}}",
        r"finetune.steps: trials do not fine-tune, expected settings of optimizer",
    ),
    (
        "{student.layers: {low: 1.5, high: 4}}",
        r"student.layers: found low 1.5 and high 4, expected whole numbers",
    ),
    ("{student.norm: {low: 1, high: 4}}", r"student.norm: found a range, expected choices"),
    (
        "{student.norm: {choices: [pre, past]}}",
        r"student.norm: found the choice 'past', expected 'post' or 'pre' or null",
    ),
    (
        "{student.layers: {choices: [1, 2.5]}}",
        r"student.layers: found the choice 2.5, expected int or null",
    ),
    (
        "{student.layers: {choices: [true]}}",
        r"student.layers: found the choice True, expected int or null",
    ),
    (
        "{student.dropout: {choices: [0, 0.0]}}",
        r"student.dropout: found the choices \[0.0, 0.0\], expected each once",
    ),
    (
        "{optimizer.learning_rate: {low: 0, high: 1}}",
        r"learning_rate: arms.scratch.optimizer: learning_rate is 0.0",
    ),
    ("{student.dropout: {low: 0, high: 1}}", r"student.dropout: .*dropout is 1.0, expected a rate"),
    (
        "{optimizer.schedule: {choices: [linear, wds]}}",
        r"schedule: found the choice 'wds', expected 'linear' or 'cosine' or 'wsd'",
    ),
    ("{student.heads: {choices: [2, 3]}}", r"student.heads: .*3 heads do not divide the width 16"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[values for values, _ in REFUSED])
def test_space_that_cannot_be_tuned_is_refused(values: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        space(values)


def test_settings_replace_those_of_the_arm_s_own_sections() -> None:
    settings = {"optimizer.learning_rate": 0.25, "student.dropout": 0.3}
    tuned = with_settings(CONFIG.arms["own"], settings)
    assert tuned.optimizer == {"learning_rate": 0.25, "b1": 0.8}
    assert tuned.student == {"dropout": 0.3}
    assert CONFIG.arms["own"].optimizer == {"learning_rate": 1.0, "b1": 0.8}
    (phase,) = arms_of(replace(CONFIG, arms={"own": tuned}))["own"].phases
    assert (phase.optimizer.learning_rate, phase.optimizer.b1, phase.student_config.dropout) == (
        0.25,
        0.8,
        0.3,
    )


@pytest.mark.parametrize(
    ("values", "value", "end"),
    [
        (RangeConfig(low=1.0, high=2.0), 1.09, "low"),
        (RangeConfig(low=1.0, high=2.0), 1.11, None),
        (RangeConfig(low=1.0, high=2.0), 1.95, "high"),
        (RangeConfig(low=1e-4, high=1e-2, log=True), 1.5e-4, "low"),
        (RangeConfig(low=1e-4, high=1e-2, log=True), 5e-3, None),
        (RangeConfig(low=1e-4, high=1e-2, log=True), 7e-3, "high"),
        (RangeConfig(low=1, high=4), 1, "low"),
        (RangeConfig(low=1, high=4), 2, None),
        (RangeConfig(choices=(0.3, 0.1, 0.2)), 0.1, "low"),
        (RangeConfig(choices=(0.3, 0.1, 0.2)), 0.2, None),
        (RangeConfig(choices=(0.3, 0.1, 0.2)), 0.3, "high"),
        (RangeConfig(choices=("pre", "post")), "pre", None),
        (RangeConfig(choices=(0.1,)), 0.1, None),
        (RangeConfig(choices=(0.1, 0.1)), 0.1, None),
    ],
)
def test_edge_of_a_range_is_its_outer_tenth_on_its_scale(
    values: RangeConfig, value: Any, end: str | None
) -> None:
    assert edge_of(values, value) == end
