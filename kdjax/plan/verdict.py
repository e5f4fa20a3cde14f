"""What a plan says, in plain sentences: by the fit of the pilot, by the check on held-out budgets,
by published laws.

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
from kdjax.report.sentences import places
from kdjax.sweep.verdict import amounts, as_endpoint, where

PRIOR = "Decoder language models, next-token loss, extrapolated"
"""What published laws are here."""


def headline(found: Plan) -> str:
    """Who is forecast to be ahead at which budgets, and from where on that is extrapolated."""
    if found["fits"] is None:
        return (
            "No pilot was fitted, so nothing is forecast from these arms' own runs: this plan has "
            "prices, what budgets "
            "buy, and what published laws say."
        )
    parts = spans(found)
    if not parts:
        why = (
            "it has one arm"
            if len(found["fits"]) == 1
            else "no two of these budgets buy every arm a step"
        )
        return f"The fit to this pilot compares nothing: {why}."
    measured = places([as_endpoint(found["pilot"]["endpoint"])])
    told = f"By the fit to this pilot, on {measured}, {'; '.join(_clauses(found, parts))}."
    if len(parts) == 1 and parts[0].standing.kind == "open":
        low = parts[0].low
        high = parts[0].high
        told = (
            f"The fit to this pilot cannot tell, on {measured}, which of "
            f"{numbers.listed(parts[0].standing.arms)} is "
            f"ahead anywhere from {numbers.flops(low)} to {numbers.flops(high)} FLOPs."
        )
    if parts[-1].high > reach(found):
        told += (
            f" Beyond {numbers.flops(reach(found))} FLOPs, the pilot's largest budget, this is "
            "extrapolated."
        )
    if lost := unusable(found):
        told += (
            f" Of {numbers.listed(lost)} nothing is forecast: values get worse with more tokens."
        )
    return told


def _clauses(found: Plan, parts: Sequence[PhaseSpan]) -> list[str]:
    """Who is ahead where, and then where that cannot be told."""
    made = [(part, _span(n, len(parts), part.low, part.high)) for n, part in enumerate(parts)]
    made.sort(key=lambda one: one[0].standing.kind == "open")
    return [f"{_ahead(part.standing, found)} {span}" for part, span in made]


def leader(standing: Standing | None) -> str:
    """Who is ahead, in a word: an arm, `tie: a and b`, or `cannot tell: a and b`."""
    if standing is None:
        return "–"
    arms = numbers.listed(standing.arms)
    return {"wins": arms, "ties": f"tie: {arms}", "open": f"cannot tell: {arms}"}[standing.kind]


def unusable(found: Plan) -> list[str]:
    """Arms whose law may not be extrapolated."""
    return [arm for arm, fit in found["fits"].items() if not fit["usable"]]


def _ahead(standing: Standing, found: Plan) -> str:
    arms = numbers.listed(standing.arms)
    others = [arm for arm in found["fits"] if arm not in standing.arms]
    if standing.kind == "wins":
        return f"{arms} is ahead of {'every other arm' if len(others) > 1 else others[0]}"
    if standing.kind == "ties":
        return f"{arms} tie{' at the head' if others else ''}"
    return f"it cannot tell which of {arms} is ahead"


def _span(n: int, count: int, low: float, high: float) -> str:
    """Budgets of a stretch, `n` of `count`."""
    if count == 1:
        return f"from {numbers.flops(low)} to {numbers.flops(high)} FLOPs"
    if n == 0:
        return f"up to {numbers.flops(high)} FLOPs"
    if n == count - 1:
        return f"from {numbers.flops(low)} FLOPs on"
    return f"from {numbers.flops(low)} to {numbers.flops(high)} FLOPs"


def answers(found: Plan) -> dict[str, str]:
    """Arm -> how it is forecast to do against the yardstick, with intervals at the largest
    budgets."""
    other = yardstick(found)
    made = {}
    for contest in contests(found):
        if other in (contest["a"], contest["b"]):
            arm = contest["b"] if contest["a"] == other else contest["a"]
            made[arm] = _answer(sided(contest, arm), found)
    return made


def _answer(contest: Mapping[str, Any], found: Plan) -> str:
    other = contest["b"]
    ranges = contest["ranges"]
    if lost := [arm for arm in (contest["a"], other) if arm in unusable(found)]:
        return (
            f"{contest['a']} cannot be told from {other}: nothing is forecast of "
            f"{numbers.listed(lost)}."
        )
    words = {
        "a wins": f"is forecast ahead of {other}",
        "b wins": f"is forecast behind {other}",
        "ties": f"is forecast to tie with {other}",
        "cannot tell": f"cannot be told from {other}",
    }
    clauses = [
        f"{words[one['verdict']]} {_span(n, len(ranges), one['low'], one['high'])}"
        for n, one in enumerate(ranges)
    ]
    asked = dict.fromkeys((reach(found), max(found["budgets"])))
    shown = [
        f"{difference(point)} at {numbers.flops(flops)} FLOPs"
        for flops in asked
        if (point := at(contest, flops))
    ]
    text = f"{contest['a']} {'; '.join(clauses)}. "
    text += (
        f"Difference, in {found['pilot']['endpoint']['unit']}: {numbers.listed(shown)}."
        if shown
        else ""
    )
    crossing = contest["crossing"]
    if crossing["value"] is not None:
        ends = contest["points"][0]["flops"], contest["points"][-1]["flops"]
        place = f"{numbers.flops(crossing['value'])} FLOPs {crossing_interval(crossing, ends)}"
        text += (
            f" The fitted curves cross at {place}; beyond, that of {crossing['later']} is the "
            "better one."
        )
    return text.strip()


def crossing_interval(crossing: Mapping[str, Any], ends: tuple[float, float]) -> str:
    """A crossing's interval; where it is open, it goes on beyond the budgets asked (`ends`), or to
    never."""
    if crossing["low"] is None and crossing["high"] is None:
        return "[open at both ends]"
    texts = [
        f"below {numbers.flops(ends[0])}"
        if crossing["low"] is None
        else numbers.flops(crossing["low"]),
        f"above {numbers.flops(ends[1])} or never"
        if crossing["high"] is None
        else numbers.flops(crossing["high"]),
    ]
    return f"[{', '.join(texts)}]"


def difference(point: Mapping[str, Any]) -> str:
    """A forecast difference with its interval."""
    return f"{numbers.signed(point['mean'])} {numbers.interval(point['low'], point['high'])}"


def sources(found: Plan) -> dict[str, list[str]]:
    """The three sources -> what each says, in sentences."""
    return {
        "Fit of this pilot": _of_fit(found),
        "Check on held-out budgets": _of_check(found),
        "Published laws": [f"{PRIOR}.", *of_prior(found)],
    }


def _of_fit(found: Plan) -> list[str]:
    if found["fits"] is None:
        return ["None: plan.pilot names no finished sweep."]
    runs = found["pilot"]["runs"]
    budgets = found["pilot"]["budgets"]
    seeds = len({run["seed"] for run in runs})
    warned = {arm: fit["cautions"] for arm, fit in found["fits"].items() if fit["cautions"]}
    made = [
        f"A law for each arm, fitted to {len(runs)} runs at {len(budgets)} budgets from "
        f"{numbers.flops(min(budgets))} "
        f"to {numbers.flops(max(budgets))} FLOPs, {seeds} seed{'' if seeds == 1 else 's'}. It "
        "takes the law for true: "
        "of a curve that bends later it knows nothing."
    ]
    if warned:
        made.append(
            f"Cautions: {'. '.join(f'{arm}: ' + '; '.join(said) for arm, said in warned.items())}."
        )
    return made


def _of_check(found: Plan) -> list[str]:
    if found["fits"] is None:
        return ["None without a pilot."]
    if not found["held_out"]:
        return ["None: it takes four budgets. How far the fit can be trusted is not known."]
    made = [_checked(one, found["pilot"]["endpoint"]["unit"]) for one in found["held_out"]]
    widened = {name: times for name, times in found["widening"].items() if times > 1}
    if widened:
        most = max(widened.values())
        names = [name.replace(" - ", f" {numbers.MINUS} ") for name in widened]
        made.append(
            f"What lay outside is made up for: intervals of {numbers.listed(names)} are so many "
            "times wider here as "
            f"would have held it, up to {most:.2f} times."
        )
    return made


def _checked(check: Mapping[str, Any], unit: str) -> str:
    """One check in a sentence."""
    levels = sorted({row["flops"] for row in check["arms"]})
    gone = (
        f"the largest budget ({numbers.flops(levels[0])} FLOPs)"
        if len(levels) == 1
        else f"the {len(levels)} largest budgets ({amounts(levels, 'flops')})"
    )
    arms = check["arms"]
    pairs = check["differences"]
    missed = [abs(row["error"]) for row in arms]
    deviations = [row["relative"] for row in arms if row["relative"] is not None]
    text = (
        f"Without {gone}, the fit misses the arms' means there by {_spread(missed, '.3f')} {unit}"
    )
    text += f" ({_spread(deviations, '.1f')} standard deviations over seeds)" if deviations else ""
    text += f"; {sum(row['covered'] for row in arms)} of {len(arms)} lie in its intervals"
    if pairs:
        right = sum((row["predicted"] > 0) == (row["observed"] > 0) for row in pairs)
        text += (
            f". Of {len(pairs)} difference{'' if len(pairs) == 1 else 's'} between arms, "
            f"{sum(row['covered'] for row in pairs)} in its intervals and {right} with the right "
            "sign"
        )
    return f"{text}."


def _spread(values: Sequence[float], digits: str) -> str:
    low = f"{min(values):{digits}}"
    high = f"{max(values):{digits}}"
    return low if low == high else f"{low} to {high}"


def of_prior(found: Plan) -> list[str]:
    """What published laws say of arms against the yardstick, and of which arms they say nothing."""
    other = yardstick(found)
    arms = found["prior"]["arms"]
    made = []
    lacking = [arm for arm, one in arms.items() if one["law"] is None]
    for arm, one in arms.items():
        if arm in (other, *lacking) or arms[other]["law"] is None:
            continue
        both = [
            (flops, mine - theirs)
            for flops, mine, theirs in zip(
                found["budgets"], one["losses"], arms[other]["losses"], strict=True
            )
            if mine is not None and theirs is not None
        ]
        every = [flops for flops, _ in both]
        signs = [
            ("below", [f for f, gap in both if gap < 0]),
            ("not below", [f for f, gap in both if gap >= 0]),
        ]
        clauses = [
            f"{word} that of {other} {where(at_, every, 'flops')}" for word, at_ in signs if at_
        ]
        if clauses:
            made.append(f"They put the loss of {arm} {numbers.listed(clauses)}.")
    if lacking:
        made.append(f"There is no published law for {numbers.listed(lacking)}.")
    return made


def cases(found: Plan) -> dict[str, list[str]]:
    """Case of who pays for the teacher -> who is ahead where, in a sentence for each standing."""
    made: dict[str, list[str]] = {}
    for case in found["contests"]:
        parts = spans(found, case)
        told = [f"{_capital(clause)}." for clause in _clauses(found, parts)]
        made[case] = told or ["No two of these budgets buy every arm a step."]
    return made


def _capital(text: str) -> str:
    """A sentence's beginning; a name stays as it is."""
    return f"I{text[1:]}" if text.startswith("it cannot") else text
