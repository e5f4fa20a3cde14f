"""Where one arm overtakes another: a change of sign with a significant side."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.errors import InputError
from kdjax.evaluation.crossing import crossings

BUDGETS = [1.0, 10.0, 100.0, 1000.0]


def crossed(
    means: list[float], half_width: float, budgets: list[float] = BUDGETS
) -> list[tuple[float, float | None, float | None, bool]]:
    """Find crossings of differences whose intervals all have one width."""
    lows = [mean - half_width for mean in means]
    highs = [mean + half_width for mean in means]
    return [(c.at, c.low, c.high, c.rising) for c in crossings(budgets, means, lows, highs)]


def test_crossing_lies_where_line_in_log_budget_is_zero() -> None:
    (crossing,) = crossed([-3.0, -1.0, 1.0, 3.0], 0.5)
    at, low, high, rising = crossing
    assert at == pytest.approx(10**1.5)
    assert low == pytest.approx(10**1.25)
    assert high == pytest.approx(10**1.75)
    assert rising
    # Mirrored, the other arm overtakes at the same place.
    (crossing,) = crossed([3.0, 1.0, -1.0, -3.0], 0.5)
    _, low, high, rising = crossing
    assert low == pytest.approx(10**1.25)
    assert high == pytest.approx(10**1.75)
    assert not rising


def test_interval_spans_budgets_without_significance() -> None:
    (crossing,) = crossed([-3.0, -0.1, 0.1, 3.0], 1.0)
    at, low, high, _ = crossing
    assert at == pytest.approx(10**1.5)
    # The ends are where a bound of the interval crosses 0 on its own line.
    assert low == pytest.approx(10 ** (2 / 2.9))
    assert high == pytest.approx(10 ** (3 - 2 / 2.9))


def test_interval_is_open_where_nothing_beyond_is_significant() -> None:
    # Above the crossing nothing is significant: its upper end is open.
    (crossing,) = crossed([-3.0, -1.0, 0.2, 0.3], 0.5)
    _, low, high, rising = crossing
    assert low is not None
    assert high is None
    assert rising
    # And below it, the other way round.
    (crossing,) = crossed([0.3, -0.1, -1.0, -3.0], 0.5)
    _, low, high, rising = crossing
    assert low is None
    assert high is not None
    assert not rising


@pytest.mark.parametrize(
    ("means", "half_width"),
    [
        ([-0.1, 0.1, -0.1, 0.1], 1.0),  # noise
        ([1.0, 2.0, 3.0, 4.0], 0.5),  # no change
        ([2.0, -0.1, 0.1, 2.0], 0.5),  # goes and comes back
        ([0.0, 0.0, 0.0, 0.0], 0.0),  # no difference at all
        ([2.0, -0.1, 0.1, 0.1], 0.5),  # comes back, and is not significant any more
    ],
)
def test_difference_that_never_changes_side_has_no_crossing(
    means: list[float], half_width: float
) -> None:
    assert crossed(means, half_width) == []


def test_several_sign_changes_in_noise_give_the_last() -> None:
    (crossing,) = crossed([0.1, -0.1, 0.1, -3.0], 0.5)
    at, low, high, rising = crossing
    # Only the last change leads to a significant side.
    assert 100 < at < 1000
    assert low is None
    assert high is not None
    assert not rising


def test_difference_that_goes_and_returns_crosses_twice() -> None:
    pair = crossed([-2.0, 2.0, 2.0, -2.0], 0.5)
    assert [(round(math.log10(at), 6), rising) for at, _, _, rising in pair] == [
        (0.5, True),
        (2.5, False),
    ]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(0, 4))
def test_crossing_lies_within_its_interval(means: list[float], half_width: float) -> None:
    for at, low, high, _ in crossed(means, half_width, [float(10**n) for n in range(len(means))]):
        assert (low or 0) <= at * (1 + 1e-9)
        assert at <= (high or math.inf) * (1 + 1e-9)
        # One side at least is significant, or it would be no crossing.
        assert low is not None or high is not None


def test_budgets_not_ascending_are_refused() -> None:
    with pytest.raises(InputError, match="expected ascending ones above 0"):
        crossings([1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0])
