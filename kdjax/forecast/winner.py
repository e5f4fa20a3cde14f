"""Which arm wins at which budget, and where two arms change places, by their fitted laws."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdjax.errors import InputError
from kdjax.evaluation.statistics import ArmVerdict
from kdjax.forecast.band import simultaneous_band
from kdjax.forecast.fit import Fits, Point, Prediction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """Neighbouring budgets with one verdict on the first arm, from `low` to `high` FLOPs."""

    verdict: ArmVerdict
    low: float
    high: float


@dataclass(frozen=True)
class Crossover:
    """The budget from which on the arm that is better later leads, as the bootstrap sees it.

    Attributes:
        value: budget where the fitted laws change places (the last time, if more than once); None
            if they do not between the smallest and the largest budget.
        low, high: ends of the interval. 0 stands for somewhere below the smallest budget or never,
            infinity for above the largest or never: such an end is unbounded.
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
class PairwiseComparison:
    """Two arms compared over budgets.

    Attributes:
        a, b: names of the arms.
        flops: `[m]`: budgets, rising.
        mean, low, high: `[m]`: expected value of a less that of b, in the endpoint's unit, with a
            band that holds the differences of all pairs at all budgets at once.
        verdicts: a verdict for each budget, on `a` against `b`.
        ranges: neighbouring budgets with the same verdict, merged.
        crossing: budget at which the two arms change places.
    """

    a: str
    b: str
    flops: Array
    mean: Array
    low: Array
    high: Array
    verdicts: tuple[ArmVerdict, ...]
    ranges: tuple[Range, ...]
    crossing: Crossover


def compare_arms(
    fits: Fits,
    flops: ArrayLike,
    spend: Callable[[str, Array], Point],
    *,
    margin: float = 0.0,
    widen: Mapping[tuple[str, str], float] | None = None,
) -> tuple[PairwiseComparison, ...]:
    """Compare every pair of arms at every budget.

    The verdict at a budget, on the first arm against the second: `TIES` where the whole interval of
    the difference lies within -margin to +margin; otherwise `BEATS` or `LOSES` where the interval
    leaves out 0; otherwise, and wherever one of the fits is not usable, `INCONCLUSIVE`. Intervals
    hold for all pairs and all budgets at once (`band.simultaneous_band` of the joint draws), so
    that what is said of a stretch of budgets, or of any pair in it, errs no more often than one.

    Args:
        fits: laws of the arms.
        flops: `[m]`: at least two budgets, rising. The crossing is found between neighbours by
            interpolation in log FLOPs, so a few dozen over the range of interest serve well.
        spend: function of an arm's name and `[m]` budgets that returns what the arm buys with them
            at its price, each field a number or `[m]`.
        margin: the largest difference that does not matter, in the endpoint's unit.
        widen: pair of arms -> by how much the interval of their difference is widened, where a
            check on held-out budgets found it too narrow (`HeldOutPrediction.widening`).

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
    widenings = widen or {}
    pairs = list(itertools.combinations(fits.arms, 2))
    differences = []
    for a, b in pairs:
        difference = fits.difference(a, points[a], b, points[b])
        differences.append(difference.widened(widenings.get((a, b), 1.0)))

    # One band over the draws of all pairs and budgets side by side.
    if not pairs:
        return ()
    joint = [np.broadcast_to(d.draws, (len(d.draws), len(budgets))) for d in differences]
    band = simultaneous_band(np.concatenate(joint, axis=1), fits.confidence)
    lows = np.split(band[0], len(pairs))
    highs = np.split(band[1], len(pairs))
    return tuple(
        _compare(fits, budgets, pair, replace(difference, low=low, high=high), margin)
        for pair, difference, low, high in zip(pairs, differences, lows, highs, strict=True)
    )


def _compare(
    fits: Fits,
    budgets: Array,
    pair: tuple[str, str],
    difference: Prediction,
    margin: float,
) -> PairwiseComparison:
    """Compare two arms at every budget; see `compare_arms`."""
    a, b = pair
    mean = np.broadcast_to(difference.mean, budgets.shape)
    low = difference.low
    high = difference.high
    draws = np.broadcast_to(difference.draws, (len(difference.draws), len(budgets)))
    verdicts: list[ArmVerdict] = ["INCONCLUSIVE"] * len(budgets)
    if fits.arms[a].usable and fits.arms[b].usable:
        ends = zip(low.tolist(), high.tolist(), strict=True)
        verdicts = [_verdict(*interval, margin, fits.better) for interval in ends]
    # Differences of losses: the arm with the lower one leads.
    sign = 1.0 if fits.better == "lower" else -1.0
    return PairwiseComparison(
        a=a,
        b=b,
        flops=budgets,
        mean=mean,
        low=low,
        high=high,
        verdicts=tuple(verdicts),
        ranges=_merge(budgets, verdicts),
        crossing=_crossover(np.log(budgets), sign * mean, sign * draws, pair, fits.confidence),
    )


def _verdict(low: float, high: float, margin: float, better: str) -> ArmVerdict:
    """Return the verdict on an interval of a less b; see `compare_arms`."""
    if -margin <= low and high <= margin:
        return "TIES"
    if low <= 0 <= high:
        return "INCONCLUSIVE"
    return "BEATS" if (low > 0) == (better == "higher") else "LOSES"


def _merge(budgets: Array, verdicts: Sequence[ArmVerdict]) -> tuple[Range, ...]:
    """Merge neighbouring budgets with the same verdict."""
    ranges = []
    for verdict, group in itertools.groupby(zip(verdicts, budgets, strict=True), lambda x: x[0]):
        inside = [float(budget) for _, budget in group]
        ranges.append(Range(verdict, inside[0], inside[-1]))
    return tuple(ranges)


def _crossover(
    logs: Array, mean: Array, draws: Array, arms: tuple[str, str], confidence: float
) -> Crossover:
    """Find where two arms change places, and the interval of that budget.

    Args:
        logs: `[m]`: log budgets.
        mean: `[m]`: loss of the first arm less that of the second, by the fitted laws.
        draws: `[draws, m]`: bootstrap draws of that difference.
        arms: names of the arms.
        confidence: nominal coverage of the interval.
    """
    at = _last_change(logs, mean[None])[0]
    final = np.median(draws[:, -1]) if np.isnan(at) else mean[-1]
    second_leads = bool(final > 0)
    drawn = _last_change(logs, draws)
    # Draws that change places in the range, and draws in which the later arm leads at its end.
    inside = ~np.isnan(drawn)
    agrees = np.sign(draws[:, -1]) == (1.0 if second_leads else -1.0)
    # Draws without a change led by the later arm changed below the range, if at all; those led by
    # the other, above. Draws that change the other way round speak for neither side and widen both
    # ends.
    forward = inside & agrees
    backward = inside & ~agrees
    below = np.where(forward, drawn, np.where((~inside & agrees) | backward, -np.inf, np.inf))
    above = np.where(forward, drawn, np.where(~inside & agrees, -np.inf, np.inf))
    tail = (1 - confidence) / 2
    low = np.quantile(below, tail, method="lower")
    high = np.quantile(above, 1 - tail, method="higher")
    value = None
    if not np.isnan(at):
        value = float(np.exp(at))
        low = min(low, at)
        high = max(high, at)
    return Crossover(
        value=value,
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        within=float(inside.mean()),
        later=arms[second_leads],
    )


def _last_change(logs: Array, gaps: Array) -> Array:
    """Find the log budget of the last change of sign of `[rows, m]` differences, NaN for none."""
    change = np.sign(gaps[:, :-1]) * np.sign(gaps[:, 1:]) < 0
    last = change.shape[1] - 1 - change[:, ::-1].argmax(1)
    row = np.arange(len(gaps))
    # Straight lines between budgets.
    gap_before = gaps[row, last]
    gap_after = gaps[row, last + 1]
    fraction = gap_before / np.where(gap_before == gap_after, 1.0, gap_before - gap_after)
    at = logs[last] + fraction * (logs[last + 1] - logs[last])
    return np.asarray(np.where(change.any(1), at, np.nan))
