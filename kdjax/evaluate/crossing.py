"""Where one arm overtakes another as the budget grows."""

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
        at: where the mean difference is 0.
        low, high: between them the difference cannot be told from 0; None where that goes on to the smallest or the
            largest budget looked at.
        rising: whether the difference goes from below 0 to above it.
    """

    at: float
    low: float | None
    high: float | None
    rising: bool


def crossings(
    budgets: Sequence[float],
    means: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
) -> list[Crossing]:
    """Finds where a difference changes its sign, with an interval.

    Means and the ends of their intervals are taken as straight lines in the logarithm of the budget between the
    budgets looked at. A budget belongs to the interval when the difference's own interval there holds 0, so the
    confidence is that of the differences' intervals, budget by budget (the inversion of a test, as in Fieller's
    theorem).

    Args:
        budgets: ascending, above 0.
        means: of the difference at each.
        lows, highs: ends of its interval at each.

    Raises:
        InputError: budgets that do not ascend.
    """
    if any(a >= b for a, b in pairwise(budgets)) or (budgets and budgets[0] <= 0):
        raise InputError(f"budgets are {list(budgets)}, expected ascending ones above 0")
    x = [math.log(budget) for budget in budgets]
    found = []
    for i in range(len(x) - 1):
        rising = means[i] < 0 <= means[i + 1]
        if rising or means[i] > 0 >= means[i + 1]:
            at = _root(x[i], x[i + 1], means[i], means[i + 1])
            before, after = (highs, lows) if rising else (lows, highs)
            found.append(Crossing(math.exp(at), _last(x, before, i, rising), _first(x, after, i + 1, rising), rising))
    return found


def _last(x: Sequence[float], ends: Sequence[float], i: int, rising: bool) -> float | None:
    """The largest budget up to point `i` at which the difference is told from 0, on the side it comes from."""
    sign = 1 if rising else -1
    for n in range(i, -1, -1):
        if sign * ends[n] < 0:
            return math.exp(_root(x[n], x[n + 1], ends[n], ends[n + 1]))
    return None


def _first(x: Sequence[float], ends: Sequence[float], i: int, rising: bool) -> float | None:
    """The smallest budget from point `i` on at which the difference is told from 0, on the side it goes to."""
    sign = 1 if rising else -1
    for n in range(i, len(x)):
        if sign * ends[n] > 0:
            return math.exp(_root(x[n - 1], x[n], ends[n - 1], ends[n]))
    return None


def _root(left: float, right: float, at_left: float, at_right: float) -> float:
    """Where a straight line is 0."""
    return left + (right - left) * at_left / (at_left - at_right)
