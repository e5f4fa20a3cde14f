"""Schedules: reading them, their values along the budget, and whether they are 0 throughout a
stretch of it."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdjax.config import Schedule
from kdjax.errors import InputError
from kdjax.objectives.schedule import is_zero, read_schedule, schedule_value, value_at_step

POINTS = ((0.25, 4.0), (0.5, 1.0), (0.75, 2.0))


@pytest.mark.parametrize(
    ("shape", "between"),
    [
        ("linear", {0.3125: 3.25, 0.375: 2.5, 0.5625: 1.25, 0.625: 1.5}),
        ("cosine", {0.3125: 1 + 3 * (1 + math.cos(math.pi / 4)) / 2, 0.375: 2.5, 0.625: 1.5}),
        ("step", {0.3125: 4, 0.375: 4, 0.4999: 4, 0.625: 1, 0.7499: 1}),
    ],
)
def test_value_between_points_follows_the_shape(shape: Any, between: dict[float, float]) -> None:
    setting = Schedule(shape, POINTS)
    # Before the first point and after the last the value stays.
    outside = {0.0: 4, 0.2: 4, 0.9: 2, 1.0: 2}
    for budget_fraction, expected in {**outside, **dict(POINTS), **between}.items():
        assert float(schedule_value(setting, budget_fraction)) == pytest.approx(
            expected, rel=1e-6
        ), budget_fraction


@pytest.mark.parametrize("shape", ["linear", "cosine", "step"])
def test_value_at_a_point_is_exact_also_when_traced_in_float32(shape: Any) -> None:
    points = tuple((share, 3.0 - share) for share in (0.0, 0.1, 0.3, 0.7, 0.9))
    traced = jax.jit(
        lambda budget_fraction: schedule_value(Schedule(shape, points), budget_fraction)
    )
    for share, number in points:
        # A traced schedule and a plain one must not differ by a rounding at a point.
        for computed in (traced(np.float32(share)), schedule_value(Schedule(shape, points), share)):
            assert computed == np.float32(number)
            assert computed.dtype == np.float32
            assert computed.shape == ()


def test_value_of_a_plain_number_is_constant() -> None:
    assert schedule_value(3, 0.5) == 3
    assert isinstance(schedule_value(3, 0.5), float)


def test_current_without_budget_fraction_is_at_the_beginning() -> None:
    rising = Schedule("linear", ((0.0, 1.0), (1.0, 5.0)))
    assert value_at_step(rising, {}) == 1
    assert value_at_step(rising, {"budget_fraction": np.float32(0.5)}) == 3


def test_value_of_one_point_is_constant() -> None:
    assert [float(schedule_value(Schedule("linear", ((0.5, 7.0),)), at)) for at in (0, 0.5, 1)] == [
        7,
        7,
        7,
    ]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    # Shares in eighths and many zeros, so that spans of zero are met often.
    shares = draw(st.lists(st.integers(0, 8), min_size=1, max_size=5, unique=True))
    points = tuple((share / 8, draw(st.sampled_from([0.0, 0.0, 1.0]))) for share in sorted(shares))
    return Schedule(draw(st.sampled_from(["linear", "cosine", "step"])), points)


@given(setting=schedules(), span=st.tuples(st.integers(0, 15), st.integers(1, 16)))
@example(Schedule("step", ((0.0, 0.0), (0.5, 1.0))), (0, 8))
@example(Schedule("linear", ((0.0, 0.0), (0.5, 1.0))), (0, 8))
@example(Schedule("linear", ((0.0, 0.0), (0.5, 0.0), (1.0, 1.0))), (0, 8))
@settings(max_examples=300, deadline=None)
def test_is_zero_over_a_span_means_zero_at_each_point_of_it(
    setting: Schedule, span: tuple[int, int]
) -> None:
    """Points lie at eighths; moments at 32nds, so that each piece of a curve is met inside."""
    begin = span[0] / 16
    end = max(span[1], span[0] + 1) / 16
    moments = [n / 32 for n in range(32) if begin <= n / 32 < end]
    # Zero on the whole span is what lets a phase leave the term out of its program.
    assert is_zero(setting, begin, end) == (not any(plain_value(setting, at) for at in moments))


def plain_value(setting: Schedule, at: float) -> float:
    """Compute the same in plain Python."""
    shares, numbers = zip(*setting.points, strict=True)
    if setting.shape == "step":
        return ([numbers[0], *(v for s, v in setting.points if s <= at)])[-1]
    return float(np.interp(at, shares, numbers))


def test_is_zero_of_a_plain_number() -> None:
    assert is_zero(0, 0.0, 1.0)
    assert is_zero(0.0, 0.5, 1.0)
    assert not is_zero(0.1, 0.0, 1.0)


def test_read_takes_numbers_and_schedules_of_a_recipe() -> None:
    assert read_schedule(2, "weight") == 2.0
    expected = Schedule("cosine", ((0.0, 1.0), (1.0, 0.0)))
    # A schedule is read as itself, so that a config can be read twice.
    assert (
        read_schedule({"shape": "cosine", "points": [[0, 1], [1, 0]]}, "weight")
        == expected
        == read_schedule(expected, "weight")
    )
    assert read_schedule({"points": [[0, 1]]}, "weight").shape == "linear"
    assert hash(read_schedule(Schedule("linear", [[0, 1]]), "weight")) == hash(
        Schedule("linear", ((0.0, 1.0),))
    )


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("2", "^T is '2', expected a number above 0 or a schedule {shape, points}$"),
        (None, "^T is None, expected a number above 0"),
        (True, "^T is True, expected a number above 0"),
        (math.nan, "^T is nan, expected a number above 0"),
        (0, "^T is 0, expected a number above 0"),
        ([[0, 1]], "expected a number above 0 or a schedule"),
        ({"point": [[0, 1]]}, "^T: unknown setting 'point' of a schedule .did you mean 'points'"),
        (
            {"shape": "cosin", "points": [[0, 1]]},
            "^T: unknown shape 'cosin' .did you mean 'cosine'",
        ),
        ({"shape": 3, "points": [[0, 1]]}, "^T: unknown shape 3"),
        ({"points": 3}, "^T: points are 3, expected a list of pairs"),
        ({"points": [[0, 1, 2]]}, "expected a list of pairs"),
        ({"points": [["0", 1]]}, "expected a list of pairs"),
        ({"points": [[0, "1"]]}, "^T is '1' at 0 of the budget, expected a number above 0$"),
        ({"points": [[0, 1], [1, 0]]}, "^T is 0 at 1 of the budget, expected a number above 0$"),
        ({"points": [[0, math.inf]]}, "^T is inf at 0 of the budget"),
        ({}, "^T: schedule: points are .., expected one or more"),
        (
            {"points": [[0.5, 1], [0.5, 2]]},
            "^T: schedule: points are at .0.5, 0.5., expected ascending",
        ),
        (
            {"points": [[0, 1], [1.5, 2]]},
            "^T: schedule: points are at .0.0, 1.5., expected ascending",
        ),
        (Schedule("linear", ((0.0, -1.0),)), "^T is -1.0 at 0.0 of the budget"),
    ],
    ids=str,
)
def test_read_of_neither_a_number_nor_a_schedule_is_refused(setting: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_schedule(setting, "T", positive=True)


def test_read_takes_zero_where_it_need_not_be_positive() -> None:
    assert read_schedule(0, "weight") == 0
    with pytest.raises(InputError, match="weight is -1, expected a number of at least 0"):
        read_schedule(-1, "weight")
