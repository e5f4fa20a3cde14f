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
        at: where the mean difference is 0, for the last time if it is so more than once.
        low, high: between them the difference cannot be told from 0; None where that goes on to the
            smallest or the largest budget looked at.
        rising: whether the difference goes from below 0 to above it.
    """

    at: float
    low: float | None
    high: float | None
    rising: bool


def crossings(
    budgets: Sequence[float], means: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> list[Crossing]:
    """Finds where a difference changes its sign, with an interval.

    Means and the ends of their intervals are taken as straight lines in the logarithm of the budget
    between the budgets looked at. A budget belongs to a crossing's interval when the difference's
    own interval there holds 0, so the confidence is that of the differences' intervals, budget by
    budget (the inversion of a test, as in Fieller's theorem). A mean that changes its sign where no
    side of it can be told from 0 is noise, and no crossing.

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
    signs = [(low > 0) - (high < 0) for low, high in zip(lows, highs, strict=True)]
    told: list[int | None] = [n for n, sign in enumerate(signs) if sign]
    found = []
    for before, after in pairwise([None, *told, None]):
        start = before or 0
        stop = len(x) - 1 if after is None else after
        changes = [
            n
            for n in range(start, stop)
            if means[n] * means[n + 1] < 0 or means[n] != 0 == means[n + 1]
        ]
        if not changes or (before is None and after is None):
            continue
        last = changes[-1]
        rising = means[last] < 0
        same_side = before is not None and after is not None and signs[before] == signs[after]
        if same_side or (after is None and before is not None and means[stop] * signs[before] > 0):
            continue  # it goes and comes back
        if before is None and after is not None and means[start] * signs[after] > 0:
            continue
        low = None if before is None else _end(x, lows if signs[before] > 0 else highs, before, 1)
        high = None if after is None else _end(x, lows if signs[after] > 0 else highs, after, -1)
        at = _root(x[last], x[last + 1], means[last], means[last + 1])
        found.append(Crossing(math.exp(at), low, high, rising))
    return found


def _end(x: Sequence[float], ends: Sequence[float], told: int, way: int) -> float:
    """From a budget where the difference is told from 0, the one on the way at which it no longer
    is."""
    return math.exp(_root(x[told], x[told + way], ends[told], ends[told + way]))


def _root(left: float, right: float, at_left: float, at_right: float) -> float:
    """Where a straight line is 0."""
    return left + (right - left) * at_left / (at_left - at_right)
