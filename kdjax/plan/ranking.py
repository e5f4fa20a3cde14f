"""Which arms are ahead where, read from a plan's pairwise comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from kdjax.evaluation.statistics import OTHER_SIDE, ArmVerdict
from kdjax.plan.schema import ComparedAt, FittedPlan, ForecastComparison, ForecastRange

_SAME = 1e-9
"""Share of a budget within which another one counts as the same."""

Verdicts = Mapping[tuple[str, str], ArmVerdict]
"""Pair of arms -> the verdict on them."""


@dataclass(frozen=True)
class Ranking:
    """What comparisons say at a budget.

    Attributes:
        kind: `wins`: one arm is ahead of every other. `ties`: the best arms tie. `open`: neither.
        arms: arms that may be the best, in the plan's order: not beaten by any arm that is itself
            unbeaten.
    """

    kind: Literal["wins", "ties", "open"]
    arms: tuple[str, ...]


@dataclass(frozen=True)
class RankedRange:
    """Neighbouring budgets with one ranking, from `low` to `high` FLOPs."""

    ranking: Ranking
    low: float
    high: float


def seen_from(comparison: ForecastComparison, arm: str) -> ForecastComparison:
    """Return a comparison of two arms turned so that `a` is a given one of them.

    Signs, intervals and verdicts are turned with it.

    Args:
        comparison: comparison of two arms, `a` and `b`.
        arm: one of the two.
    """
    if comparison.a == arm:
        return comparison

    # Differences change their signs, and so the ends of intervals their places.
    points = []
    for point in comparison.points:
        verdict = OTHER_SIDE[point.verdict]
        points.append(ComparedAt(point.flops, -point.mean, -point.high, -point.low, verdict))
    ranges = tuple(replace(r, verdict=OTHER_SIDE[r.verdict]) for r in comparison.ranges)
    return replace(comparison, a=comparison.b, b=comparison.a, points=tuple(points), ranges=ranges)


def comparisons_with_baseline(fitted: FittedPlan) -> dict[str, ForecastComparison]:
    """Return arm -> its comparison with the baseline arm, read from the arm's side."""
    baseline = fitted.plan.baseline_arm
    comparisons = {}
    for comparison in fitted.of_case():
        if comparison.b == baseline:
            comparisons[comparison.a] = comparison
        elif comparison.a == baseline:
            comparisons[comparison.b] = seen_from(comparison, comparison.b)
    return comparisons


def comparison_at(comparison: ForecastComparison, flops: float) -> ComparedAt | None:
    """Return a comparison at a budget, interpolated between its points on either side.

    Args:
        comparison: comparison of two arms.
        flops: budget in FLOPs.

    Returns:
        The verdict is that of both points, or `INCONCLUSIVE` where these differ. None outside the
        budgets compared.
    """
    points = comparison.points
    below = [point for point in points if point.flops <= flops * (1 + _SAME)]
    above = [point for point in points if point.flops >= flops * (1 - _SAME)]
    if not below or not above:
        return None
    lower = below[-1]
    upper = above[0]

    # At a budget that was compared, the same point lies on either side.
    share = 0.0
    if upper.flops > lower.flops:
        share = math.log(flops / lower.flops) / math.log(upper.flops / lower.flops)
    verdict: ArmVerdict = lower.verdict if lower.verdict == upper.verdict else "INCONCLUSIVE"
    return ComparedAt(
        flops,
        mean=lower.mean + share * (upper.mean - lower.mean),
        low=lower.low + share * (upper.low - lower.low),
        high=lower.high + share * (upper.high - lower.high),
        verdict=verdict,
    )


def ranking(fitted: FittedPlan, flops: float, case: str = "") -> Ranking | None:
    """Rank the arms at a budget; None where nothing was compared there.

    Args:
        fitted: plan with its pilot.
        flops: budget in FLOPs.
        case: way to pay for the teacher; empty: the one that the budget enforces.
    """
    verdicts: dict[tuple[str, str], ArmVerdict] = {}
    for comparison in fitted.of_case(case):
        point = comparison_at(comparison, flops)
        if point is not None:
            verdicts[comparison.a, comparison.b] = point.verdict
    if not verdicts:
        return None
    return _ranking(verdicts, list(fitted.plan.arms))


def ranked_ranges(fitted: FittedPlan, case: str = "") -> list[RankedRange]:
    """Rank the arms over all budgets compared, small ones first.

    Args:
        fitted: plan with its pilot.
        case: way to pay for the teacher; empty: the one that the budget enforces.

    Returns:
        Neighbouring budgets with one ranking are one range, as are those at which the lead is open.
        A single budget between others at which an arm leads, or arms tie, counts as open.
    """
    order = list(fitted.plan.arms)
    comparisons = fitted.of_case(case)
    if not comparisons:
        return []

    # All comparisons have points at the same budgets.
    at_budgets = []
    for n, point in enumerate(comparisons[0].points):
        now = _ranking({(c.a, c.b): c.points[n].verdict for c in comparisons}, order)
        at_budgets.append(RankedRange(now, point.flops, point.flops))
    ranges = _joined(at_budgets, order)

    # What holds at one budget, and at neither neighbour, comes and goes with the draws.
    settled = []
    for n, ranked in enumerate(ranges):
        ranking_there = ranked.ranking
        if 0 < n < len(ranges) - 1 and ranked.low == ranked.high:
            ranking_there = Ranking("open", ranking_there.arms)
        settled.append(replace(ranked, ranking=ranking_there))
    return _joined(settled, order)


def _joined(ranges: Sequence[RankedRange], order: Sequence[str]) -> list[RankedRange]:
    """Join neighbours with one ranking, and neighbours that are both open.

    Args:
        ranges: ranges of rising budgets.
        order: the arms in the plan's order.
    """
    joined: list[RankedRange] = []
    for ranked in ranges:
        now = ranked.ranking
        # Which arms may lead changes within an open range: it has all that may anywhere.
        if joined and joined[-1].ranking.kind == now.kind == "open":
            either = {*joined[-1].ranking.arms, *now.arms}
            now = Ranking("open", tuple(arm for arm in order if arm in either))
            joined[-1] = replace(joined[-1], ranking=now, high=ranked.high)
        elif joined and joined[-1].ranking == now:
            joined[-1] = replace(joined[-1], high=ranked.high)
        else:
            joined.append(ranked)
    return joined


def without_flicker(ranges: Sequence[ForecastRange]) -> list[ForecastRange]:
    """Return a comparison's ranges with single budgets between others as INCONCLUSIVE.

    A verdict that holds at one budget, and at neither neighbour, comes and goes with the draws that
    the interval is made of. This claims less than the ranges do, never more.

    Args:
        ranges: neighbouring budgets with one verdict, of rising budgets.
    """
    settled: list[ForecastRange] = []
    for n, budgets in enumerate(ranges):
        verdict = budgets.verdict
        if 0 < n < len(ranges) - 1 and budgets.low == budgets.high:
            verdict = "INCONCLUSIVE"
        if settled and settled[-1].verdict == verdict:
            settled[-1] = replace(settled[-1], high=budgets.high)
        else:
            settled.append(replace(budgets, verdict=verdict))
    return settled


def _ranking(verdicts: Verdicts, order: Sequence[str]) -> Ranking:
    """Rank the arms by the verdicts on pairs of them."""
    beaten_by: dict[str, set[str]] = {arm: set() for arm in chain.from_iterable(verdicts)}
    for (a, b), verdict in verdicts.items():
        if verdict == "BEATS":
            beaten_by[b].add(a)
        elif verdict == "LOSES":
            beaten_by[a].add(b)

    # An arm that only beaten ones beat may still be better than those that nobody beats.
    arms = [arm for arm in order if arm in beaten_by]
    unbeaten = {arm for arm in arms if not beaten_by[arm]}
    best = tuple(arm for arm in arms if not beaten_by[arm] & unbeaten)

    # Several arms are tied only where every pair of them is.
    if len(best) == 1:
        return Ranking("wins", best)
    among_best = [verdict for pair, verdict in verdicts.items() if set(pair) <= set(best)]
    if set(among_best) <= {"TIES"}:
        return Ranking("ties", best)
    return Ranking("open", best)
