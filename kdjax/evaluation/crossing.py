"""The budget at which one arm overtakes another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kdjax.errors import InputError


@dataclass(frozen=True)
class Crossing:
    """The budget at which a difference changes its sign.

    Attributes:
        at: budget where the mean difference is 0, for the last time if it is so more than once.
        low, high: the budgets between which the interval of the difference holds 0; None where that
            goes on to the smallest or the largest budget looked at.
        rising: whether the difference goes from below 0 to above it.
    """

    at: float
    low: float | None
    high: float | None
    rising: bool


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring budgets whose differences cannot be told from 0, and the two around them.

    Attributes:
        before, after: numbers of the budgets on either side, whose differences can; None: there is
            none, and the stretch goes on to the smallest or the largest budget.
        first, last: numbers of the first and the last budget, `before` and `after` included.
    """

    before: int | None
    after: int | None
    first: int
    last: int


def crossings(
    budgets: Sequence[float], means: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[Crossing]:
    """Find where a difference changes its sign, with an interval.

    Means and the ends of their intervals are taken as straight lines in the logarithm of the budget
    between the budgets looked at. A budget belongs to a crossing's interval when the difference's
    own interval there holds 0, so the confidence is that of the differences' intervals, budget by
    budget (the inversion of a test, as in Fieller's theorem). A mean that changes its sign where no
    side of it can be told from 0 is noise, and no crossing.

    Args:
        budgets: amounts of the budgets compared, ascending, above 0.
        means: mean difference at each budget.
        lows: lower end of the difference's interval at each budget.
        highs: upper end of it.

    Raises:
        InputError: budgets that do not ascend.
    """
    if any(a >= b for a, b in pairwise(budgets)) or (budgets and budgets[0] <= 0):
        raise InputError(f"budgets are {list(budgets)}, expected ascending ones above 0")
    x = [math.log(budget) for budget in budgets]

    # The sign of the difference at each budget; 0 where its interval holds 0.
    signs = [(low > 0) - (high < 0) for low, high in zip(lows, highs, strict=True)]
    crossed = []
    for stretch in _stretches(signs):
        change = _last_change(stretch, means, signs)
        if change is None:
            continue
        at = _zero_of_line(x[change], x[change + 1], means[change], means[change + 1])

        # Its interval ends where that of the difference first holds 0, coming from either side.
        low = None
        high = None
        if stretch.before is not None:
            ends = lows if signs[stretch.before] > 0 else highs
            low = _zero_beside(x, ends, stretch.before, stretch.before + 1)
        if stretch.after is not None:
            ends = lows if signs[stretch.after] > 0 else highs
            high = _zero_beside(x, ends, stretch.after, stretch.after - 1)
        crossed.append(Crossing(math.exp(at), low, high, rising=means[change] < 0))
    return crossed


def _stretches(signs: Sequence[int]) -> list[_Stretch]:
    """Return the stretches in which at most one crossing lies.

    They are between two neighbouring budgets whose differences can be told from 0, and on either
    side of all of these. Without any such budget all is noise, and there is no stretch.

    Args:
        signs: sign of the difference at each budget; 0 where it cannot be told from 0.
    """
    decided = [number for number, sign in enumerate(signs) if sign]
    if not decided:
        return []
    stretches = [_Stretch(None, decided[0], 0, decided[0])]
    for before, after in pairwise(decided):
        stretches.append(_Stretch(before, after, before, after))
    stretches.append(_Stretch(decided[-1], None, decided[-1], len(signs) - 1))
    return stretches


def _last_change(stretch: _Stretch, means: Sequence[float], signs: Sequence[int]) -> int | None:
    """Return the budget after which the mean changes its sign for the last time in a stretch.

    Args:
        stretch: the stretch.
        means: mean difference at each budget.
        signs: sign of the difference at each budget; 0 where it cannot be told from 0.

    Returns:
        None where it does not change, or goes and comes back: one sign at both ends is no crossing.
    """
    changes = []
    for number in range(stretch.first, stretch.last):
        changes_sign = means[number] * means[number + 1] < 0
        comes_to_zero = means[number] != 0 and means[number + 1] == 0
        if changes_sign or comes_to_zero:
            changes.append(number)
    if not changes:
        return None
    # At an open end the mean speaks, as the interval says nothing.
    at_first = means[stretch.first] if stretch.before is None else signs[stretch.before]
    at_last = means[stretch.last] if stretch.after is None else signs[stretch.after]
    if at_first * at_last > 0:
        return None
    return changes[-1]


def _zero_beside(x: Sequence[float], ends: Sequence[float], decided: int, neighbour: int) -> float:
    """Compute the budget at which an interval's end is 0, between a budget and its neighbour.

    Args:
        x: logarithms of the budgets.
        ends: the end of the interval that lies nearer to 0, at each budget.
        decided: number of a budget whose difference can be told from 0.
        neighbour: number of the budget beside it whose interval holds 0, or is on the other side.
    """
    return math.exp(_zero_of_line(x[decided], x[neighbour], ends[decided], ends[neighbour]))


def _zero_of_line(left: float, right: float, at_left: float, at_right: float) -> float:
    """Compute where a straight line is 0.

    Args:
        left: a point of the axis.
        right: another one.
        at_left: value of the line at `left`.
        at_right: value of the line at `right`, of the other sign.
    """
    return left + (right - left) * at_left / (at_left - at_right)
