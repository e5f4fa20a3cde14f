"""What a plan says: by the fit of the pilot, by its check on held-out budgets, by published laws.

`found` is the content of plan.json throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdjax.plan.standing import (
    PhaseSpan,
    Plan,
    Standing,
    at,
    contests,
    reach,
    sided,
    spans,
    yardstick,
)
from kdjax.report import numbers
from kdjax.report.phrases import counted, say, sentence
from kdjax.report.sentences import measures
from kdjax.sweep.verdict import amounts, as_endpoint, bracket, where

PRIOR = say("prior")
"""What published laws are here."""


def headline(found: Plan) -> str:
    """Say who is forecast to be ahead at which budgets, and from where on that is extrapolated."""
    if found["fits"] is None:
        return say("plan_no_pilot")
    parts = spans(found)
    if not parts:
        return say("plan_one_arm" if len(found["fits"]) == 1 else "plan_no_step")
    text = measures([as_endpoint(found["pilot"]["endpoint"])])
    clauses = "; ".join(_clauses(found, parts))
    statement = say("plan_headline", measures=text, clauses=clauses)
    if len(parts) == 1 and parts[0].standing.kind == "open":
        arms = numbers.listed(parts[0].standing.arms)
        span = _span(0, 1, parts[0].low, parts[0].high)
        statement = say("plan_undecided", measures=text, arms=arms, span=span)
    caveats = []
    if parts[-1].high > reach(found):
        caveats.append(say("plan_extrapolated", flops=numbers.flops(reach(found))))
    if unusable(found):
        caveats.append(say("plan_unusable", arms=numbers.listed(unusable(found))))
    return sentence(statement, *caveats)


def _clauses(found: Plan, parts: Sequence[PhaseSpan]) -> list[str]:
    """Say who is ahead where, and then where that cannot be told."""
    decided: list[str] = []
    undecided: list[str] = []
    for n, part in enumerate(parts):
        standing = part.standing
        others = [arm for arm in found["fits"] if arm not in standing.arms]
        clause = say(
            f"plan_{standing.kind}",
            arms=numbers.listed(standing.arms),
            others=numbers.listed(others),
            span=_span(n, len(parts), part.low, part.high),
        )
        if standing.kind == "open":
            undecided.append(clause)
        else:
            decided.append(clause)
    return [*decided, *undecided]


def leader(standing: Standing | None) -> str:
    """Say who is ahead: an arm, `tie: a and b`, or `cannot tell: a and b`."""
    if standing is None:
        return "–"
    return say(f"leader_{standing.kind}", arms=numbers.listed(standing.arms))


def unusable(found: Plan) -> list[str]:
    """Return arms whose law may not be extrapolated."""
    return [arm for arm, fit in found["fits"].items() if not fit["usable"]]


def _span(n: int, count: int, low: float, high: float) -> str:
    """Write the budgets of stretch `n` of `count`."""
    phrase = "span_whole"
    if count > 1 and n == 0:
        phrase = "span_first"
    elif count > 1 and n == count - 1:
        phrase = "span_last"
    return say(phrase, low=numbers.flops(low), high=numbers.flops(high))


def answers(found: Plan) -> dict[str, str]:
    """Forecast for each arm how it does against the baseline arm, with intervals."""
    other = yardstick(found)
    answers = {}
    for contest in contests(found):
        if other in (contest["a"], contest["b"]):
            arm = contest["b"] if contest["a"] == other else contest["a"]
            answers[arm] = _answer(sided(contest, arm), found)
    return answers


def _answer(contest: Mapping[str, Any], found: Plan) -> str:
    """Forecast how the first arm of a contest does against the second."""
    arms = {"arm": contest["a"], "other": contest["b"]}
    lost = [arm for arm in arms.values() if arm in unusable(found)]
    if lost:
        return say("plan_not_told", unusable=numbers.listed(lost), **arms)
    ranges = contest["ranges"]
    phrases = {"ties": "plan_range_ties"}
    clauses = []
    for n, part in enumerate(ranges):
        phrase = phrases.get(part["verdict"], f"plan_{part['verdict']}")
        clauses.append(say(phrase, span=_span(n, len(ranges), part["low"], part["high"])))
    parts = [say("plan_answer", clauses="; ".join(clauses), **arms)]

    # The difference at the pilot's largest budget and at the plan's.
    differences = []
    for flops in dict.fromkeys((reach(found), max(found["budgets"]))):
        point = at(contest, flops)
        if point:
            at_budget = {"difference": difference(point), "flops": numbers.flops(flops)}
            differences.append(say("plan_difference_at", **at_budget))
    if differences:
        unit = found["pilot"]["endpoint"]["unit"]
        parts.append(say("plan_difference", unit=unit, differences=numbers.listed(differences)))
    crossing = contest["crossing"]
    if crossing["value"] is not None:
        ends = (contest["points"][0]["flops"], contest["points"][-1]["flops"])
        interval = crossing_interval(crossing, ends)
        flops = numbers.flops(crossing["value"])
        later = crossing["later"]
        parts.append(say("plan_crossing", flops=flops, interval=interval, later=later))
    return sentence(*parts)


def crossing_interval(crossing: Mapping[str, Any], ends: tuple[float, float]) -> str:
    """Write a crossing's interval; an open end lies beyond the budgets asked, or nowhere."""
    return bracket(crossing["low"], crossing["high"], ends, "flops", "above_or_never")


def difference(point: Mapping[str, Any]) -> str:
    """Write a forecast difference with its interval."""
    return f"{numbers.signed(point['mean'])} {numbers.interval(point['low'], point['high'])}"


def sources(found: Plan) -> dict[str, list[str]]:
    """Say what each of the three sources says."""
    return {
        "Fit of this pilot": _of_fit(found),
        "Check on held-out budgets": _of_check(found),
        "Published laws": [f"{PRIOR}.", *of_prior(found)],
    }


def _of_fit(found: Plan) -> list[str]:
    """Say what the laws were fitted to, and what to be careful of."""
    if found["fits"] is None:
        return [say("fit_none")]
    runs = found["pilot"]["runs"]
    budgets = found["pilot"]["budgets"]
    fit = say(
        "fit",
        runs=counted(len(runs), "run"),
        budgets=counted(len(budgets), "budget"),
        low=numbers.flops(min(budgets)),
        high=numbers.flops(max(budgets)),
        seeds=counted(len({run["seed"] for run in runs}), "seed"),
    )
    cautions = []
    for arm, law in found["fits"].items():
        if law["cautions"]:
            cautions.append(f"{arm}: {'; '.join(law['cautions'])}")
    return [fit, say("fit_cautions", cautions=". ".join(cautions))] if cautions else [fit]


def _of_check(found: Plan) -> list[str]:
    """Say how far the fit missed budgets that it had not seen."""
    if found["fits"] is None:
        return [say("check_none")]
    if not found["held_out"]:
        return [say("check_few")]
    unit = found["pilot"]["endpoint"]["unit"]
    checks = [_checked(check, unit) for check in found["held_out"]]
    widened = {name: times for name, times in found["widening"].items() if times > 1}
    if widened:
        pairs = [name.replace(" - ", f" {numbers.MINUS} ") for name in widened]
        most = max(widened.values())
        checks.append(say("check_widened", pairs=numbers.listed(pairs), most=most))
    return checks


def _checked(check: Mapping[str, Any], unit: str) -> str:
    """Say what one check showed, first of arms and then of their differences."""
    arms = check["arms"]
    pairs = check["differences"]
    deviations = [row["relative"] for row in arms if row["relative"] is not None]
    relative = ""
    if deviations:
        relative = say("check_deviations", deviations=numbers.span(deviations, "{:.1f}".format))
    levels = sorted({row["flops"] for row in arms})
    of_arms = say(
        "check",
        budgets=amounts(levels, "flops"),
        missed=numbers.span((abs(row["error"]) for row in arms), "{:.3f}".format),
        unit=unit,
        deviations=relative,
        covered=sum(row["covered"] for row in arms),
        count=len(arms),
    )
    if not pairs:
        return of_arms
    of_pairs = say(
        "check_pairs",
        count=len(pairs),
        covered=sum(row["covered"] for row in pairs),
        signs=sum((row["predicted"] > 0) == (row["observed"] > 0) for row in pairs),
    )
    return sentence(of_arms, of_pairs)


def of_prior(found: Plan) -> list[str]:
    """Say what published laws say of arms against the baseline arm, and of which arms nothing."""
    other = yardstick(found)
    arms = found["prior"]["arms"]
    texts = []
    for arm, prior in arms.items():
        if arm == other or prior["law"] is None or arms[other]["law"] is None:
            continue
        below: list[float] = []
        not_below: list[float] = []
        for flops, loss, others in zip(
            found["budgets"], prior["losses"], arms[other]["losses"], strict=True
        ):
            if loss is not None and others is not None:
                (below if loss < others else not_below).append(flops)
        every = sorted([*below, *not_below])
        clauses = [
            say(phrase, other=other, where=where(budgets, every, "flops"))
            for phrase, budgets in (("prior_below", below), ("prior_not_below", not_below))
            if budgets
        ]
        if clauses:
            texts.append(say("prior_loss", arm=arm, clauses=numbers.listed(clauses)))
    lacking = [arm for arm, prior in arms.items() if prior["law"] is None]
    if lacking:
        texts.append(say("prior_lacking", arms=numbers.listed(lacking)))
    return texts


def cases(found: Plan) -> dict[str, list[str]]:
    """Say for each case of who pays for the teacher who is ahead where."""
    texts = {}
    for case in found["contests"]:
        clauses = [f"{clause}." for clause in _clauses(found, spans(found, case))]
        texts[case] = clauses or [say("plan_case_none")]
    return texts
