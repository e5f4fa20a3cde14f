"""Objectives: weighted sums whose weights and temperatures may change over the budget."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import Schedule
from kdjax.objectives import FeatureRequest, Features, get
from kdjax.objectives.objective import Objective
from tests.objectives.examples import STUDENT, TEACHER, WIDE, features, packed, restricted
from tests.support.doctests import check_example

HEATED = {"shape": "step", "points": [[0, 1], [0.5, 3]]}
FALLING = Schedule("linear", ((0.0, 2.0), (1.0, 0.0)))
SCHEDULED = Objective(
    (
        ("mlm", 0.5, get("mlm")),
        ("logit", FALLING, get("logit")),
        ("logit_2", 1.0, get("logit", temperature=HEATED)),
    )
)


@pytest.fixture(scope="module")
def example() -> tuple[Any, Any, Any]:
    batch = packed()
    logits = FeatureRequest(logits=True)
    student = restricted(features(STUDENT, batch, 1, np.float32), logits)
    teacher = restricted(features(TEACHER, batch, 2, np.float32), logits)
    return student, teacher, batch


@pytest.fixture(scope="module")
def values(example: Any) -> tuple[float, ...]:
    """The values of mlm, logit at temperature 1 and logit at temperature 3."""
    terms = (get("mlm"), get("logit"), get("logit", temperature=3))
    return tuple(float(term(*example, {})) for term in terms)


@pytest.mark.parametrize("budget_fraction", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("traced", [False, True])
def test_objective_weights_and_temperatures_follow_the_budget_fraction(
    budget_fraction: float, traced: bool, example: Any, values: tuple[float, ...]
) -> None:
    call = jax.jit(SCHEDULED) if traced else SCHEDULED
    total, terms = call(*example, {}, np.float32(budget_fraction) if traced else budget_fraction)
    mlm, cold, hot = values
    # The step lies at half the budget, where the temperature becomes 3.
    last = cold if budget_fraction < 0.5 else hot
    assert {key: float(x) for key, x in terms.items()} == pytest.approx(
        {"mlm": mlm, "logit": cold, "logit_2": last}, rel=1e-5
    )
    # Fixed weight, falling weight and heated term, each in its own share.
    assert float(total) == pytest.approx(
        0.5 * mlm + 2 * (1 - budget_fraction) * cold + last, rel=1e-5
    )
    assert total.dtype == np.float32
    assert total.shape == ()


def test_objective_without_budget_fraction_is_at_the_beginning(
    example: Any, values: tuple[float, ...]
) -> None:
    total, _ = SCHEDULED(*example, {})
    # At the start the falling weight is 2, and the heated logit is still cold: 3 together.
    mlm, cold, _ = values
    assert float(total) == pytest.approx(0.5 * mlm + 3 * cold, rel=1e-5)


def test_objective_is_scheduled_where_a_weight_or_an_option_is() -> None:
    mlm = SCHEDULED.terms[0][2]
    logit = SCHEDULED.terms[1][2]
    heated = SCHEDULED.terms[2][2]
    assert SCHEDULED.scheduled
    # A schedule in the weight, or in an option, makes the step depend on the budget.
    assert Objective((("logit", FALLING, logit),)).scheduled
    assert Objective((("mlm", 1.0, mlm), ("logit", 1.0, heated))).scheduled
    assert not Objective((("mlm", 1.0, mlm), ("logit", 0.5, logit))).scheduled


def test_objective_needs_and_parameters_are_those_of_its_terms_together() -> None:
    objective = Objective(
        (("hidden_mse", 1.0, get("hidden_mse")), ("relation", 1.0, get("relation")))
    )
    needs = objective.needs(STUDENT, WIDE)
    # A layer asked for by one term alone is in the request.
    assert needs.student.hidden == {0, 1, 2}
    assert needs.student.query == {2}
    assert needs.teacher.value == {4}
    # Only the projection has parameters; a term without any has no entry.
    assert set(objective.init(STUDENT, WIDE, 0)) == {"hidden_mse"}
    assert objective.needs_teacher
    assert not Objective((("mlm", 1.0, get("mlm")),)).needs_teacher


@pytest.mark.parametrize("documented", [Objective, Objective.__call__])
def test_example_of_objective_prints_what_it_says(documented: Any) -> None:
    names = {"Features": Features, "Objective": Objective, "get": get, "jnp": jnp}
    check_example(documented, names)
