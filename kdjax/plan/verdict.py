"""What a plan says: by its pilot's fit, by a check on held-out budgets, and by published laws."""

from __future__ import annotations

from collections.abc import Sequence

from kdjax.plan.phrases import CHECK, FIT, LAWS, say
from kdjax.plan.plateau import arms_near_unigram
from kdjax.plan.ranking import (
    RankedRange,
    Ranking,
    comparison_at,
    comparisons_with_baseline,
    ranked_ranges,
    without_flicker,
)
from kdjax.plan.schema import (
    ComparedAt,
    CrossingForecast,
    FittedPlan,
    ForecastComparison,
    HeldOutCheck,
    Plan,
)
from kdjax.report import numbers
from kdjax.report.phrases import counted, listed, sentence
from kdjax.report.sentences import measures
from kdjax.sweep.verdict import budgets_in_words, budgets_text, crossing_text

PRIOR = say("prior")
"""What published laws were fitted to, as a caution."""


def headline(plan: Plan) -> str:
    """Return the sentence on who is forecast to lead at which budgets, and what is extrapolated."""
    fitted = FittedPlan.from_plan(plan)
    if fitted is None:
        return say("plan_no_pilot")

    # Without a comparison the sentence says why there is none.
    ranges = ranked_ranges(fitted)
    if not ranges and len(fitted.fits) == 1:
        return say("plan_one_arm")
    if not ranges:
        return say("plan_no_step")

    # Who is ahead where, in one sentence; another where that cannot be told anywhere.
    measured = measures([fitted.pilot.endpoint])
    clauses = "; ".join(_clauses(fitted, ranges))
    statement = say("plan_headline", measures=measured, clauses=clauses)
    only = ranges[0]
    if len(ranges) == 1 and only.ranking.kind == "open":
        arms = listed(only.ranking.arms)
        span = _span(0, 1, only.low, only.high)
        statement = say("plan_undecided", measures=measured, arms=arms, span=span)

    # How far that can be relied on.
    caveats = []
    if ranges[-1].high > fitted.largest_budget:
        caveats.append(say("plan_extrapolated", flops=numbers.flops(fitted.largest_budget)))
    if near := arms_near_unigram(fitted.pilot):
        caveats.append(say("plan_near_unigram", arms=listed(near)))
    if unusable := _unusable(fitted):
        caveats.append(say("plan_unusable", arms=listed(unusable)))
    return sentence(statement, *caveats)


def _clauses(fitted: FittedPlan, ranges: Sequence[RankedRange]) -> list[str]:
    """Return clauses on who is ahead where, and then on where that cannot be told."""
    decided: list[str] = []
    undecided: list[str] = []
    for n, ranked in enumerate(ranges):
        ranking = ranked.ranking
        other_arms = [arm for arm in fitted.fits if arm not in ranking.arms]
        clause = say(
            f"plan_{ranking.kind}",
            arms=listed(ranking.arms),
            others=listed(other_arms),
            span=_span(n, len(ranges), ranked.low, ranked.high),
        )
        if ranking.kind == "open":
            undecided.append(clause)
        else:
            decided.append(clause)
    return [*decided, *undecided]


def leader(ranking: Ranking | None) -> str:
    """Return the best arms as text: an arm, `TIES: a and b`, or `INCONCLUSIVE: a and b`."""
    if ranking is None:
        return "–"
    return say(f"leader_{ranking.kind}", arms=listed(ranking.arms))


def _unusable(fitted: FittedPlan) -> list[str]:
    """Return arms whose law may not be extrapolated."""
    return [arm for arm, law in fitted.fits.items() if not law.usable]


def _span(n: int, count: int, low: float, high: float) -> str:
    """Return the budgets of range `n` of `count` as text."""
    phrase = "span_whole"
    if numbers.flops(low) == numbers.flops(high):
        phrase = "span_one"
    elif count > 1 and n == 0:
        phrase = "span_first"
    elif count > 1 and n == count - 1:
        phrase = "span_last"
    return say(phrase, low=numbers.flops(low), high=numbers.flops(high))


def answers(fitted: FittedPlan) -> dict[str, str]:
    """Return arm -> the sentence on its forecast against the baseline arm, with intervals."""
    comparisons = comparisons_with_baseline(fitted)
    return {arm: _answer(comparison, fitted) for arm, comparison in comparisons.items()}


def _answer(comparison: ForecastComparison, fitted: FittedPlan) -> str:
    """Return the sentence on a comparison's first arm against the second."""
    # A law that may not be extrapolated answers nothing.
    arms = {"arm": comparison.a, "other": comparison.b}
    unusable = [name for name in arms.values() if name in _unusable(fitted)]
    if unusable:
        return say("plan_not_told", unusable=listed(unusable), **arms)
    clauses = []
    ranges = without_flicker(comparison.ranges)
    for n, budgets in enumerate(ranges):
        span = _span(n, len(ranges), budgets.low, budgets.high)
        clauses.append(say(f"forecast_{budgets.verdict}", span=span))
    sentences = [say("plan_answer", clauses="; ".join(clauses), **arms)]

    # The difference where the pilot ends, and at the largest budget asked.
    differences = []
    for flops in dict.fromkeys((fitted.largest_budget, max(fitted.plan.budgets))):
        point = comparison_at(comparison, flops)
        if point is not None:
            differences.append(
                say(
                    "plan_difference_at",
                    difference=difference(point),
                    flops=numbers.flops(flops),
                )
            )
    if differences:
        sentences.append(
            say(
                "plan_difference",
                unit=fitted.pilot.endpoint.unit,
                differences=listed(differences),
            )
        )

    # Where the two laws change places, if they do; who is ahead then, if the verdict says so, too.
    crossing = comparison.crossing
    if crossing.value is not None:
        ends = (comparison.points[0].flops, comparison.points[-1].flops)
        is_told = ranges[-1].verdict == ("BEATS" if crossing.later == comparison.a else "LOSES")
        sentences.append(
            say(
                "plan_crossing" if is_told else "plan_crossing_open",
                flops=numbers.flops(crossing.value),
                interval=crossing_interval(crossing, ends),
                later=crossing.later,
            )
        )
    return sentence(*sentences)


def crossing_interval(crossing: CrossingForecast, ends: tuple[float, float]) -> str:
    """Return a crossing's interval as text.

    An open end lies beyond the budgets compared, or nowhere.

    Args:
        crossing: crossing of two laws.
        ends: smallest and largest budget compared.
    """
    return crossing_text(crossing.low, crossing.high, ends, "flops", "above_or_never")


def difference(point: ComparedAt) -> str:
    """Return a forecast difference with its interval as text."""
    return f"{numbers.signed(point.mean)} {numbers.interval(point.low, point.high)}"


def sources(plan: Plan) -> dict[str, list[str]]:
    """Return the sentences on each source: the pilot's fit, its check, and published laws."""
    fitted = FittedPlan.from_plan(plan)
    by_fit = [say("fit_none")]
    by_check = [say("check_none")]
    if fitted is not None:
        by_fit = _of_fit(fitted)
        by_check = _of_check(fitted)
    return {
        FIT: by_fit,
        CHECK: by_check,
        LAWS: [f"{PRIOR}.", *prior_sentences(plan)],
    }


def _of_fit(fitted: FittedPlan) -> list[str]:
    """Return the sentences on what was fitted to what, and what to doubt of it."""
    budgets = fitted.pilot.budgets
    fit = say(
        "fit",
        runs=counted(len(fitted.pilot.runs), "run"),
        budgets=counted(len(budgets), "budget"),
        low=numbers.flops(min(budgets)),
        high=numbers.flops(max(budgets)),
        seeds=counted(len({run.seed for run in fitted.pilot.runs}), "seed"),
    )

    # Arms whose law gives a reason to doubt it.
    cautions = []
    for arm, law in fitted.fits.items():
        if law.cautions:
            cautions.append(f"{arm}: {'; '.join(law.cautions)}")
    if not cautions:
        return [fit]
    return [fit, say("fit_cautions", cautions=". ".join(cautions))]


def _of_check(fitted: FittedPlan) -> list[str]:
    """Return the sentences on how far the fit missed budgets that it had not seen."""
    if not fitted.held_out:
        return [say("check_few")]
    unit = fitted.pilot.endpoint.unit
    # A sentence for each check, and one on the intervals that were widened for them.
    checks = [_checked(check, unit) for check in fitted.held_out]
    widened = {name: times for name, times in fitted.widening.items() if times > 1}
    if widened:
        pairs = [name.replace(" - ", f" {numbers.MINUS} ") for name in widened]
        most = max(widened.values())
        checks.append(say("check_widened", pairs=listed(pairs), most=most))
    return checks


def _checked(check: HeldOutCheck, unit: str) -> str:
    """Return the sentences on one check, first on arms and then on their differences."""
    # A single seed has no standard deviation to count errors in.
    deviations = [row.relative for row in check.arms if row.relative is not None]
    relative = ""
    if deviations:
        relative = say("check_deviations", deviations=numbers.span(deviations, "{:.1f}".format))
    of_arms = say(
        "check",
        budgets=budgets_text(sorted({row.flops for row in check.arms}), "flops"),
        missed=numbers.span((abs(row.error) for row in check.arms), "{:.3f}".format),
        unit=unit,
        deviations=relative,
        covered=sum(row.covered for row in check.arms),
        count=len(check.arms),
    )
    pairs = check.differences
    if not pairs:
        return of_arms
    of_pairs = say(
        "check_pairs",
        count=len(pairs),
        covered=sum(row.covered for row in pairs),
        signs=sum((row.predicted > 0) == (row.observed > 0) for row in pairs),
    )
    return sentence(of_arms, of_pairs)


def prior_sentences(plan: Plan) -> list[str]:
    """Return sentences on each arm's published law against the baseline arm's, or its absence."""
    baseline = plan.baseline_arm
    arms = plan.prior.arms
    sentences = []
    for name, arm in arms.items():
        if name == baseline or arm.law is None or arms[baseline].law is None:
            continue

        # Budgets that buy both arms a step, by whether the arm's loss is the lower one.
        losses = zip(plan.budgets, arm.losses, arms[baseline].losses, strict=True)
        compared = [
            (flops, loss < baseline_loss)
            for flops, loss, baseline_loss in losses
            if loss is not None and baseline_loss is not None
        ]
        every = sorted(flops for flops, _ in compared)
        below = [flops for flops, is_below in compared if is_below]
        not_below = [flops for flops, is_below in compared if not is_below]
        clauses = [
            say(phrase, baseline=baseline, where=budgets_in_words(budgets, every, "flops"))
            for phrase, budgets in (("prior_below", below), ("prior_not_below", not_below))
            if budgets
        ]
        if clauses:
            sentences.append(say("prior_loss", arm=name, clauses=listed(clauses)))

    # Arms that no published law describes.
    lacking = [name for name, arm in arms.items() if arm.law is None]
    if lacking:
        sentences.append(say("prior_lacking", arms=listed(lacking)))
    return sentences


def cases(fitted: FittedPlan) -> dict[str, list[str]]:
    """Return, for each case of who pays for the teacher, the sentences on who is ahead where."""
    sentences = {}
    for case in fitted.comparisons:
        clauses = _clauses(fitted, ranked_ranges(fitted, case))
        sentences[case] = [f"{clause}." for clause in clauses] or [say("plan_case_none")]
    return sentences
