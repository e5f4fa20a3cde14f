"""What a study's verdicts say of two arms, as it was run and where others pay for the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdjax.report import numbers, summary
from kdjax.report.phrases import say
from kdjax.results.study import Results
from kdjax.results.verdicts import Case, CaseVerdict, Endpoint

AS_RUN = "as run"
"""Name of what holds for the study as it was run, where its budget is not one of FLOPs."""
SYMBOLS = {
    "BEATS": ">",
    "LOSES": "<",
    "TIES": "=",
    "AT LEAST TIES": "≥",
    "AT MOST TIES": "≤",
    "INCONCLUSIVE": "?",
    "OPEN": "○",
    "NOT LEARNT": "∅",
}
"""What the first arm does to the second -> its sign."""
_OTHER_SIDE = {
    "BEATS": "LOSES",
    "LOSES": "BEATS",
    "AT LEAST TIES": "AT MOST TIES",
    "AT MOST TIES": "AT LEAST TIES",
}


@dataclass(frozen=True)
class Relation:
    """What holds between two arms on an endpoint.

    Attributes:
        word: what the first arm does to the second, a key of `SYMBOLS`.
        interval: interval of their difference as text; empty without one.
        sentence: the same as a sentence, with difference, interval and p-value.
    """

    word: str
    interval: str
    sentence: str

    @property
    def symbol(self) -> str:
        """Return the sign of the word."""
        return SYMBOLS[self.word]


def case_names(results: Results) -> list[str]:
    """Return the ways to look at a study: the one that holds as it was run comes first."""
    enforced = [case.case for case in results.cases if case.enforced]
    others = [case.case for case in results.cases if not case.enforced]
    return [*(enforced or [AS_RUN]), *others]


def relations(results: Results, endpoint: Endpoint, arm: str, other: str) -> dict[str, Relation]:
    """Return what holds between two arms, by the names of `case_names`.

    Args:
        results: the content of results.json.
        endpoint: the endpoint.
        arm: the first arm.
        other: the second arm.

    Returns:
        Nothing where the two were not compared.
    """
    difference = summary.difference(results, endpoint, arm, other)
    if difference is None:
        return {}
    measured = _measured(difference, endpoint)
    interval = ""
    if difference.low is not None and difference.high is not None:
        interval = numbers.interval(difference.low, difference.high)
    fields = {"arm": arm, "other": other, "label": endpoint.label}
    names = case_names(results)
    sentence = say("relation", outcome=difference.outcome, measured=measured, **fields)
    by_case = {names[0]: Relation(difference.outcome, interval, sentence)}
    cases = {case.case: case for case in results.cases}
    for name in names[1:]:
        row = _row(cases[name], endpoint, arm, other)
        if row is None:
            continue
        # A case's verdict is read from one side alone.
        word = row.verdict if row.a == arm else _OTHER_SIDE.get(row.verdict, row.verdict)
        ratio = row.ratio if row.a == arm else 1 / row.ratio if row.ratio else 0.0
        cost = say("relation_cost", case=name, ratio=numbers.ratio(ratio))
        sentence = say("relation", outcome=word, measured=measured + cost, **fields)
        by_case[name] = Relation(word, interval, sentence)
    return by_case


def relations_to_baseline(results: Results, endpoint: Endpoint) -> dict[str, dict[str, str]]:
    """Return, for each way to look at a study, arm -> what it does to the baseline arm.

    Args:
        results: the content of results.json.
        endpoint: the endpoint.
    """
    words: dict[str, dict[str, str]] = {name: {} for name in case_names(results)}
    for arm in results.arms:
        if arm == results.baseline_arm:
            continue
        by_case: Mapping[str, Relation] = relations(results, endpoint, arm, results.baseline_arm)
        for name, relation in by_case.items():
            words[name][arm] = relation.word
    return words


def _measured(difference: summary.Difference, endpoint: Endpoint) -> str:
    """Return a difference with its interval, p-value and seeds as a clause."""
    seeds = f"{difference.n}"
    if difference.mean is None or difference.low is None or difference.high is None:
        return say("relation_unmeasured", seeds=seeds)
    p_value = ""
    if difference.p_adjusted is not None:
        p_value = say("primary_p", p_value=numbers.p_value(difference.p_adjusted))
    return say(
        "relation_measured",
        difference=numbers.signed(difference.mean),
        unit=endpoint.unit,
        interval=numbers.interval(difference.low, difference.high),
        seeds=seeds,
        p_value=p_value,
    )


def _row(case: Case, endpoint: Endpoint, arm: str, other: str) -> CaseVerdict | None:
    """Return the verdict of a case on two arms, in whatever order it names them."""
    for row in case.verdicts:
        if row.endpoint == endpoint.name and {row.a, row.b} == {arm, other}:
            return row
    return None
