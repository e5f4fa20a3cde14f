"""Which arm wins at which budget: differences of fitted laws over a range of budgets, and where two
arms cross."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdjax.errors import InputError
from kdjax.forecast.fit import Fits, Point

Array = NDArray[np.float64]
Verdict = Literal["a wins", "b wins", "ties", "cannot tell"]


@dataclass(frozen=True)
class Range:
    """Neighbouring budgets with one verdict: from `low` to `high` FLOPs, both asked budgets."""

    verdict: Verdict
    low: float
    high: float


@dataclass(frozen=True)
class Crossing:
    """The budget from which on the arm that is better later leads, as the bootstrap sees it.

    Attributes:
        value: where the fitted laws change places (the last time, if more than once); None where
            they do not between the smallest and the largest budget asked.
        low, high: ends of the interval. 0 stands for somewhere below the smallest budget asked or
            never, infinity for above the largest or never: such an end is unbounded.
        within: share of draws that change places between the smallest and the largest budget.
        later: the arm that leads after the change; of laws that do not change places, the one that
            leads in more draws at the largest budget.
    """

    value: float | None
    low: float
    high: float
    within: float
    later: str


@dataclass(frozen=True)
class Contest:
    """Two arms compared over budgets.

    Attributes:
        a, b: the arms.
        flops: `[m]`: budgets asked, rising.
        mean, low, high: `[m]`: expected value of a less that of b, in the endpoint's unit, with its
            pointwise interval.
        verdicts: one for each budget.
        ranges: the same, merged.
        crossing: where the two change places.
    """

    a: str
    b: str
    flops: Array
    mean: Array
    low: Array
    high: Array
    verdicts: tuple[Verdict, ...]
    ranges: tuple[Range, ...]
    crossing: Crossing


def contests(
    fits: Fits,
    flops: ArrayLike,
    spend: Callable[[str, Array], Point],
    *,
    margin: float = 0.0,
    widen: Mapping[tuple[str, str], float] | None = None,
) -> tuple[Contest, ...]:
    """Compare every pair of arms at every budget.

    The verdict at a budget: `ties` where the whole interval of the difference lies within -margin
    to +margin; otherwise the better arm wins where the interval leaves out 0; otherwise, and
    wherever one of the fits is not usable, `cannot tell`. Intervals hold one by one, not all at
    once.

    Args:
        fits: the arms' laws.
        flops: `[m]`: at least two budgets, rising. The crossing is found between neighbours by
            interpolation in log FLOPs, so a few dozen over the range of interest serve well.
        spend: `spend(arm, flops)` says what the arm buys with `[m]` budgets at its price:
            parameters, tokens and unique tokens, each a number or `[m]`.
        margin: the largest difference that does not matter, in the endpoint's unit.
        widen: pair of arms -> by how much the interval of their difference is widened, where a
            check on held-out budgets found it too narrow (`HeldOut.widening`).

    Raises:
        InputError: budgets that are not above 0 and rising, a margin that is negative or not
            finite, or a point where a law cannot be asked.
    """
    budgets = np.atleast_1d(np.asarray(flops, np.float64))
    if len(budgets) < 2 or not budgets[0] > 0 or not (np.diff(budgets) > 0).all():
        raise InputError(
            f"forecast: budgets are {budgets.tolist()}, expected at least two, above 0 and rising"
        )
    if not 0 <= margin < np.inf:
        raise InputError(f"forecast: margin is {margin}, expected a finite number of at least 0")
    points = {arm: spend(arm, budgets) for arm in fits.arms}
    times = widen or {}
    return tuple(
        _contest(fits, budgets, points, a, b, margin, times.get((a, b), 1.0))
        for a, b in itertools.combinations(fits.arms, 2)
    )


def _contest(
    fits: Fits,
    budgets: Array,
    points: dict[str, Point],
    a: str,
    b: str,
    margin: float,
    times: float,
) -> Contest:
    gap = fits.difference(a, points[a], b, points[b]).widened(times)
    mean, low, high = (np.broadcast_to(x, budgets.shape) for x in (gap.mean, gap.low, gap.high))
    usable = fits.arms[a].usable and fits.arms[b].usable
    verdicts = tuple(
        _verdict(float(one), float(two), margin, fits.better) if usable else "cannot tell"
        for one, two in zip(low, high, strict=True)
    )
    sign = 1.0 if fits.better == "lower" else -1.0
    draws = np.broadcast_to(gap.draws, (len(gap.draws), len(budgets)))
    crossing = _crossing(np.log(budgets), sign * mean, sign * draws, (a, b), fits.confidence)
    return Contest(a, b, budgets, mean, low, high, verdicts, _merge(budgets, verdicts), crossing)


def _verdict(low: float, high: float, margin: float, better: str) -> Verdict:
    if -margin <= low and high <= margin:
        return "ties"
    if low <= 0 <= high:
        return "cannot tell"
    return "a wins" if (low > 0) == (better == "higher") else "b wins"


def _merge(budgets: Array, verdicts: Sequence[Verdict]) -> tuple[Range, ...]:
    ranges = []
    for verdict, group in itertools.groupby(
        zip(verdicts, budgets, strict=True), key=lambda pair: pair[0]
    ):
        inside = [float(budget) for _, budget in group]
        ranges.append(Range(verdict, inside[0], inside[-1]))
    return tuple(ranges)


def _crossing(
    logs: Array, mean: Array, draws: Array, arms: tuple[str, str], confidence: float
) -> Crossing:
    """From `a` less `b` with lower better: `[m]` of the laws and `[draws, m]` of the bootstrap."""
    where = _last_change(logs, mean[None])[0]
    leads = mean[-1] if not np.isnan(where) else np.median(draws[:, -1])
    later = 1.0 if leads > 0 else -1.0
    found = _last_change(logs, draws)
    ends = np.sign(draws[:, -1]) == later
    inside = ~np.isnan(found)
    # Draws without a change led by the later arm changed below the range, if at all; those led by
    # the other, above. Draws that change the other way round speak for neither side and widen both
    # ends.
    forward = inside & ends
    backward = inside & ~ends
    below = np.where(forward, found, np.where((~inside & ends) | backward, -np.inf, np.inf))
    above = np.where(forward, found, np.where(~inside & ends, -np.inf, np.inf))
    tail = (1 - confidence) / 2
    low = np.quantile(below, tail, method="lower")
    high = np.quantile(above, 1 - tail, method="higher")
    value = None if np.isnan(where) else float(np.exp(where))
    if value is not None:
        low = min(low, where)
        high = max(high, where)
    return Crossing(
        value,
        float(np.exp(low)),
        float(np.exp(high)),
        float(inside.mean()),
        arms[1] if later > 0 else arms[0],
    )


def _last_change(logs: Array, gaps: Array) -> Array:
    """`[rows]`: log budget of the last change of sign of `[rows, m]` differences; NaN where there
    is none."""
    change = np.sign(gaps[:, :-1]) * np.sign(gaps[:, 1:]) < 0
    last = change.shape[1] - 1 - change[:, ::-1].argmax(1)
    row = np.arange(len(gaps))
    left = gaps[row, last]
    right = gaps[row, last + 1]
    share = left / np.where(left == right, 1.0, left - right)
    where = logs[last] + share * (logs[last + 1] - logs[last])
    return np.asarray(np.where(change.any(1), where, np.nan))
