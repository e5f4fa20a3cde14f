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
    significant: list[int | None] = [n for n, sign in enumerate(signs) if sign]

    def interval_end(index: int | None, direction: int) -> float | None:
        """Find where the interval beside a significant budget first holds 0.

        Args:
            index: number of the significant budget; None: the interval is open on this side.
            direction: 1 for the interval above that budget, -1 for the one below.
        """
        if index is None:
            return None
        # The interval's end that lies nearer to 0.
        ends = lows if signs[index] > 0 else highs
        neighbour = index + direction
        return math.exp(_zero_of_line(x[index], x[neighbour], ends[index], ends[neighbour]))

    # At most one crossing lies between two neighbouring significant budgets, and one on either side
    # of all of them (None). Without any significant budget all is noise.
    crossed = []
    for before, after in pairwise([None, *significant, None]):
        if before is None and after is None:
            continue
        start = before or 0
        stop = len(x) - 1 if after is None else after
        changes = []
        for n in range(start, stop):
            changes_sign = means[n] * means[n + 1] < 0
            comes_to_zero = means[n] != 0 and means[n + 1] == 0
            if changes_sign or comes_to_zero:
                changes.append(n)
        if not changes:
            continue

        # The difference goes and comes back where it has one sign at both ends: that is no
        # crossing. At an open end the mean speaks, as the interval says nothing.
        first = means[start] if before is None else signs[before]
        final = means[stop] if after is None else signs[after]
        if first * final > 0:
            continue
        last = changes[-1]
        at = _zero_of_line(x[last], x[last + 1], means[last], means[last + 1])
        low = interval_end(before, 1)
        high = interval_end(after, -1)
        crossed.append(Crossing(math.exp(at), low, high, rising=means[last] < 0))
    return crossed


def _zero_of_line(left: float, right: float, at_left: float, at_right: float) -> float:
    """Compute where a straight line is 0.

    Args:
        left: a point of the axis.
        right: another one.
        at_left: value of the line at `left`.
        at_right: value of the line at `right`, of the other sign.
    """
    return left + (right - left) * at_left / (at_left - at_right)
