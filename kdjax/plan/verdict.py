"""What a plan says, in plain sentences: by the fit of the pilot, by the check on held-out budgets,
by published laws."""

from __future__ import annotations

from collections.abc import Sequence

from kdjax.plan.ranking import RankedRange, Ranking, against_baseline, at, ranked_ranges
from kdjax.plan.schema import (
    ComparedAt,
    CrossingForecast,
    FittedPlan,
    HeldOutCheck,
    PairwiseComparison,
    Plan,
)
from kdjax.report import numbers
from kdjax.report.sentences import measures
from kdjax.sweep.verdict import amounts, where

PRIOR = "Decoder language models, next-token loss, extrapolated"
"""What published laws are here."""
_PHRASES = {
    "a wins": "is forecast ahead of {}",
    "b wins": "is forecast behind {}",
    "ties": "is forecast to tie with {}",
    "cannot tell": "cannot be told from {}",
}


def headline(plan: Plan) -> str:
    """Say who is forecast to be ahead at which budgets, and from where on that is extrapolated."""
    fitted = FittedPlan.of(plan)
    if fitted is None:
        return (
            "No pilot was fitted, so nothing is forecast from these arms' own runs: this plan has "
            "prices, what budgets buy, and what published laws say."
        )
    ranges = ranked_ranges(fitted)
    if not ranges:
        why = "no two of these budgets buy every arm a step"
        if len(fitted.fits) == 1:
            why = "it has one arm"
        return f"The fit to this pilot compares nothing: {why}."
    # Who is ahead where, in one sentence; another where that cannot be told anywhere.
    measured = measures([fitted.pilot.endpoint])
    text = f"By the fit to this pilot, on {measured}, {'; '.join(_clauses(fitted, ranges))}."
    only = ranges[0]
    if len(ranges) == 1 and only.ranking.kind == "open":
        text = (
            f"The fit to this pilot cannot tell, on {measured}, which of "
            f"{numbers.listed(only.ranking.arms)} is ahead anywhere from "
            f"{numbers.flops(only.low)} to {numbers.flops(only.high)} FLOPs."
        )
    # How far that can be relied on.
    if ranges[-1].high > fitted.largest_budget:
        text += (
            f" Beyond {numbers.flops(fitted.largest_budget)} FLOPs, the pilot's largest budget, "
            "this is extrapolated."
        )
    if unusable := _unusable(fitted):
        names = numbers.listed(unusable)
        text += f" Of {names} nothing is forecast: values get worse with more tokens."
    return text


def _clauses(fitted: FittedPlan, ranges: Sequence[RankedRange]) -> list[str]:
    """Return who is ahead where, and then where that cannot be told."""
    told = []
    open_ones = []
    for n, ranked in enumerate(ranges):
        clause = (
            f"{_ahead(ranked.ranking, fitted)} {_span(n, len(ranges), ranked.low, ranked.high)}"
        )
        if ranked.ranking.kind == "open":
            open_ones.append(clause)
        else:
            told.append(clause)
    return told + open_ones


def leader(ranking: Ranking | None) -> str:
    """Return who is ahead, in a word: an arm, `tie: a and b`, or `cannot tell: a and b`."""
    if ranking is None:
        return "–"
    arms = numbers.listed(ranking.arms)
    return {"wins": arms, "ties": f"tie: {arms}", "open": f"cannot tell: {arms}"}[ranking.kind]


def _unusable(fitted: FittedPlan) -> list[str]:
    """Return arms whose law may not be extrapolated."""
    return [arm for arm, law in fitted.fits.items() if not law.usable]


def _ahead(ranking: Ranking, fitted: FittedPlan) -> str:
    """Return who is ahead of whom."""
    arms = numbers.listed(ranking.arms)
    others = [arm for arm in fitted.fits if arm not in ranking.arms]
    if ranking.kind == "open":
        return f"it cannot tell which of {arms} is ahead"
    if ranking.kind == "ties":
        return f"{arms} tie at the head" if others else f"{arms} tie"
    if len(others) == 1:
        return f"{arms} is ahead of {others[0]}"
    return f"{arms} is ahead of every other arm"


def _span(n: int, count: int, low: float, high: float) -> str:
    """Return the budgets of a range, `n` of `count`."""
    if count > 1 and n == 0:
        return f"up to {numbers.flops(high)} FLOPs"
    if count > 1 and n == count - 1:
        return f"from {numbers.flops(low)} FLOPs on"
    return f"from {numbers.flops(low)} to {numbers.flops(high)} FLOPs"


def answers(fitted: FittedPlan) -> dict[str, str]:
    """Return arm -> how it is forecast to do against the baseline arm, with intervals at the
    largest budgets."""
    comparisons = against_baseline(fitted)
    return {arm: _answer(comparison, fitted) for arm, comparison in comparisons.items()}


def _answer(comparison: PairwiseComparison, fitted: FittedPlan) -> str:
    """Return how a comparison's first arm is forecast to do against the second."""
    arm = comparison.a
    other = comparison.b
    unusable = [name for name in (arm, other) if name in _unusable(fitted)]
    if unusable:
        names = numbers.listed(unusable)
        return f"{arm} cannot be told from {other}: nothing is forecast of {names}."
    clauses = []
    for n, told in enumerate(comparison.ranges):
        span = _span(n, len(comparison.ranges), told.low, told.high)
        clauses.append(f"{_PHRASES[told.verdict].format(other)} {span}")
    sentences = [f"{arm} {'; '.join(clauses)}."]

    # The difference where the pilot ends, and at the largest budget asked.
    shown = []
    for flops in dict.fromkeys((fitted.largest_budget, max(fitted.plan.budgets))):
        point = at(comparison, flops)
        if point is not None:
            shown.append(f"{difference(point)} at {numbers.flops(flops)} FLOPs")
    if shown:
        unit = fitted.pilot.endpoint.unit
        sentences.append(f"Difference, in {unit}: {numbers.listed(shown)}.")
    crossing = comparison.crossing
    if crossing.value is not None:
        ends = (comparison.points[0].flops, comparison.points[-1].flops)
        sentences.append(
            f"The fitted curves cross at {numbers.flops(crossing.value)} FLOPs "
            f"{crossing_interval(crossing, ends)}; beyond, that of {crossing.later} is the better "
            "one."
        )
    return " ".join(sentences)


def crossing_interval(crossing: CrossingForecast, ends: tuple[float, float]) -> str:
    """Return a crossing's interval; where it is open, it goes on beyond the budgets asked, or to
    never.

    Args:
        crossing: of two laws.
        ends: the smallest and the largest budget asked.
    """
    if crossing.low is None and crossing.high is None:
        return "[open at both ends]"
    low = f"below {numbers.flops(ends[0])}"
    if crossing.low is not None:
        low = numbers.flops(crossing.low)
    high = f"above {numbers.flops(ends[1])} or never"
    if crossing.high is not None:
        high = numbers.flops(crossing.high)
    return f"[{low}, {high}]"


def difference(point: ComparedAt) -> str:
    """Return a forecast difference with its interval."""
    return f"{numbers.signed(point.mean)} {numbers.interval(point.low, point.high)}"


def sources(plan: Plan) -> dict[str, list[str]]:
    """Return the three sources -> what each says, in sentences."""
    fitted = FittedPlan.of(plan)
    by_fit = ["None: plan.pilot names no finished sweep."]
    by_check = ["None without a pilot."]
    if fitted is not None:
        by_fit = _of_fit(fitted)
        by_check = _of_check(fitted)
    return {
        "Fit of this pilot": by_fit,
        "Check on held-out budgets": by_check,
        "Published laws": [f"{PRIOR}.", *of_prior(plan)],
    }


def _of_fit(fitted: FittedPlan) -> list[str]:
    """Return what was fitted to what, and what to doubt of it."""
    budgets = fitted.pilot.budgets
    seeds = len({run.seed for run in fitted.pilot.runs})
    sentences = [
        f"A law for each arm, fitted to {len(fitted.pilot.runs)} runs at {len(budgets)} budgets "
        f"from {numbers.flops(min(budgets))} to {numbers.flops(max(budgets))} FLOPs, {seeds} "
        f"seed{'' if seeds == 1 else 's'}. It takes the law for true: of a curve that bends later "
        "it knows nothing."
    ]
    doubts = []
    for arm, law in fitted.fits.items():
        if law.cautions:
            doubts.append(f"{arm}: {'; '.join(law.cautions)}")
    if doubts:
        sentences.append(f"Cautions: {'. '.join(doubts)}.")
    return sentences


def _of_check(fitted: FittedPlan) -> list[str]:
    """Return how far the fit can be trusted."""
    if not fitted.held_out:
        return ["None: it takes four budgets. How far the fit can be trusted is not known."]
    unit = fitted.pilot.endpoint.unit
    sentences = [_checked(check, unit) for check in fitted.held_out]
    widened = {name: times for name, times in fitted.widening.items() if times > 1}
    if widened:
        names = [name.replace(" - ", f" {numbers.MINUS} ") for name in widened]
        sentences.append(
            f"What lay outside is made up for: intervals of {numbers.listed(names)} are so many "
            f"times wider here as would have held it, up to {max(widened.values()):.2f} times."
        )
    return sentences


def _checked(check: HeldOutCheck, unit: str) -> str:
    """Return one check in a sentence."""
    levels = sorted({row.flops for row in check.arms})
    held_out = f"the {len(levels)} largest budgets ({amounts(levels, 'flops')})"
    if len(levels) == 1:
        held_out = f"the largest budget ({numbers.flops(levels[0])} FLOPs)"
    errors = [abs(row.error) for row in check.arms]
    text = (
        f"Without {held_out}, the fit misses the arms' means there by {_spread(errors, '.3f')} "
        f"{unit}"
    )
    deviations = [row.relative for row in check.arms if row.relative is not None]
    if deviations:
        text += f" ({_spread(deviations, '.1f')} standard deviations over seeds)"
    covered = sum(row.covered for row in check.arms)
    text += f"; {covered} of {len(check.arms)} lie in its intervals"
    if check.differences:
        count = len(check.differences)
        covered = sum(row.covered for row in check.differences)
        right = sum((row.predicted > 0) == (row.observed > 0) for row in check.differences)
        text += (
            f". Of {count} difference{'' if count == 1 else 's'} between arms, {covered} in its "
            f"intervals and {right} with the right sign"
        )
    return f"{text}."


def _spread(values: Sequence[float], digits: str) -> str:
    """Return the least and the most of some values; one number where these look alike."""
    low = f"{min(values):{digits}}"
    high = f"{max(values):{digits}}"
    return low if low == high else f"{low} to {high}"


def of_prior(plan: Plan) -> list[str]:
    """Say what published laws say of arms against the baseline arm, and of which arms they say
    nothing."""
    baseline = plan.baseline_arm
    arms = plan.prior.arms
    sentences = []
    for name, arm in arms.items():
        if name == baseline or arm.law is None or arms[baseline].law is None:
            continue
        below: list[float] = []
        not_below: list[float] = []
        for flops, loss, other in zip(plan.budgets, arm.losses, arms[baseline].losses, strict=True):
            if loss is not None and other is not None:
                side = below if loss < other else not_below
                side.append(flops)
        every = sorted(below + not_below)
        clauses = []
        if below:
            clauses.append(f"below that of {baseline} {where(below, every, 'flops')}")
        if not_below:
            clauses.append(f"not below that of {baseline} {where(not_below, every, 'flops')}")
        if clauses:
            sentences.append(f"They put the loss of {name} {numbers.listed(clauses)}.")
    lacking = [name for name, arm in arms.items() if arm.law is None]
    if lacking:
        sentences.append(f"There is no published law for {numbers.listed(lacking)}.")
    return sentences


def cases(fitted: FittedPlan) -> dict[str, list[str]]:
    """Return who pays for the teacher -> who is ahead where, in a sentence for each ranking."""
    sentences: dict[str, list[str]] = {}
    for case in fitted.comparisons:
        clauses = _clauses(fitted, ranked_ranges(fitted, case))
        told = [f"{_capital(clause)}." for clause in clauses]
        sentences[case] = told or ["No two of these budgets buy every arm a step."]
    return sentences


def _capital(text: str) -> str:
    """Return a sentence's beginning; a name stays as it is."""
    return f"I{text[1:]}" if text.startswith("it cannot") else text
