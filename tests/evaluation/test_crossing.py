"""Where one arm overtakes another: a change of sign that at least one side of it can be told from
0."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.evaluation.crossing import crossings

BUDGETS = [1.0, 10.0, 100.0, 1000.0]


def crossed(
    means: list[float], reach: float | list[float], budgets: list[float] = BUDGETS
) -> list[tuple]:
    """Crossings of differences whose intervals reach so far to both sides."""
    reaches = [reach] * len(means) if isinstance(reach, float) else reach
    lows = [m - r for m, r in zip(means, reaches, strict=True)]
    highs = [m + r for m, r in zip(means, reaches, strict=True)]
    return [(c.at, c.low, c.high, c.rising) for c in crossings(budgets, means, lows, highs)]


def test_between_two_budgets_it_is_where_a_straight_line_in_log_budget_is_0() -> None:
    ((at, low, high, rising),) = crossed([-3.0, -1.0, 1.0, 3.0], 0.5)
    assert at == pytest.approx(10**1.5)
    assert low == pytest.approx(10**1.25) and high == pytest.approx(10**1.75)
    assert rising
    ((_, low, high, rising),) = crossed([3.0, 1.0, -1.0, -3.0], 0.5)
    assert low == pytest.approx(10**1.25) and high == pytest.approx(10**1.75)
    assert not rising


def test_its_interval_goes_on_over_budgets_that_cannot_be_told() -> None:
    ((at, low, high, _),) = crossed([-3.0, -0.1, 0.1, 3.0], 1.0)
    assert at == pytest.approx(10**1.5)
    assert low == pytest.approx(10 ** (2 / 2.9)) and high == pytest.approx(10 ** (3 - 2 / 2.9))


def test_an_end_is_open_where_nothing_beyond_can_be_told() -> None:
    ((_, low, high, rising),) = crossed([-3.0, -1.0, 0.2, 0.3], 0.5)
    assert low is not None and high is None and rising
    ((_, low, high, rising),) = crossed([0.3, -0.1, -1.0, -3.0], 0.5)
    assert low is None and high is not None and not rising


@pytest.mark.parametrize(
    ("means", "reach"),
    [
        ([-0.1, 0.1, -0.1, 0.1], 1.0),  # noise
        ([1.0, 2.0, 3.0, 4.0], 0.5),  # no change
        ([2.0, -0.1, 0.1, 2.0], 0.5),  # goes and comes back
        ([0.0, 0.0, 0.0, 0.0], 0.0),  # no difference at all
        ([2.0, -0.1, 0.1, 0.1], 0.5),  # comes back, and is not told any more
    ],
)
def test_no_crossing(means: list[float], reach: float) -> None:
    assert crossed(means, reach) == []


def test_of_several_changes_within_one_doubt_the_last_counts() -> None:
    ((at, low, high, rising),) = crossed([0.1, -0.1, 0.1, -3.0], 0.5)
    assert 100 < at < 1000 and low is None and high is not None and not rising


def test_two_crossings() -> None:
    found = crossed([-2.0, 2.0, 2.0, -2.0], 0.5)
    assert [(round(math.log10(at), 6), rising) for at, _, _, rising in found] == [
        (0.5, True),
        (2.5, False),
    ]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(0, 4))
def test_a_crossing_lies_within_its_interval(means: list[float], reach: float) -> None:
    for at, low, high, _ in crossed(means, reach, [float(10**n) for n in range(len(means))]):
        assert (low or 0) <= at * (1 + 1e-9) and at <= (high or math.inf) * (1 + 1e-9)
        assert low is not None or high is not None


def test_budgets_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(InputError, match="expected ascending ones above 0"):
        crossings([1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0])
