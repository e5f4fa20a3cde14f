"""The first lines of a page: the question, and its answer in two short sentences."""

from __future__ import annotations

from collections.abc import Mapping

from kdjax.report import case_words, numbers, summary
from kdjax.report.phrases import listed, say, sentence
from kdjax.report.sentences import measures
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint

_NAMED = 3
"""Arms of one outcome that a sentence names; of more it gives the number."""
_ORDER = tuple(case_words.SYMBOLS)


def question(results: Results) -> str:
    """Return the study's question.

    Args:
        results: the content of results.json.
    """
    baseline = results.baseline_arm
    distilled = any(summary.has_teacher(results, arm) for arm in results.arms)
    # Only against an arm that needs no teacher the question is whether to distil.
    if distilled and not results.arms[baseline].needs_teacher:
        return say("distilling")
    return say("against", baseline=baseline)


def compared_endpoints(results: Results) -> list[MeasuredEndpoint]:
    """Return the endpoints that sentences are of and verdicts are on.

    Args:
        results: the content of results.json.
    """
    compared = {verdict.endpoint for verdict in results.verdicts}
    return [e for e in summary.main_endpoints(results) if e.name in compared]


def endpoint_of(results: Results) -> MeasuredEndpoint | None:
    """Return the endpoint that the answer is by: the primary one, else the first of most arms."""
    endpoints = compared_endpoints(results)
    for endpoint in endpoints:
        if endpoint.name == results.primary:
            return endpoint
    return max(endpoints, key=lambda endpoint: len(endpoint.arms), default=None)


def answers(results: Results) -> dict[str, str]:
    """Return the answer for each way to look at the study, by `case_words.case_names`.

    Args:
        results: the content of results.json.
    """
    endpoint = endpoint_of(results)
    names = case_words.case_names(results)
    if endpoint is None:
        return dict.fromkeys(names, say("lead_nothing"))
    words = case_words.relations_to_baseline(results, endpoint)
    texts = {}
    for name in names:
        texts[name] = _answer(results, endpoint, words[name])
    planned = results.config["evaluation"].get("planned_seeds", 0)
    seeds = len(results.config["seeds"])
    if seeds >= planned:
        return texts
    # A study that is looked at before it is whole may still say something else.
    provisional = {}
    for name, text in texts.items():
        provisional[name] = say("provisional", seeds=seeds, planned=planned, headline=text)
    return provisional


def _answer(results: Results, endpoint: MeasuredEndpoint, words: Mapping[str, str]) -> str:
    """Return the answer by one endpoint.

    Args:
        results: the content of results.json.
        endpoint: the endpoint.
        words: arm -> what it does to the baseline arm.
    """
    baseline = results.baseline_arm
    measure = measures([endpoint])
    outcomes: dict[str, list[str]] = {}
    for arm in sorted(words, key=lambda arm: _ORDER.index(words[arm])):
        outcomes.setdefault(words[arm], []).append(arm)
    if not outcomes:
        return say("lead_nothing")
    # The first sentence is of the arms that do best, the second of all others.
    clauses = []
    for word, arms in outcomes.items():
        clauses.append(_clause(word, arms, len(words), baseline))
    first = say("lead", measure=measure, clause=clauses[0])
    rest = say("lead_others", clauses="; ".join(clauses[1:])) if len(clauses) > 1 else ""
    return sentence(first, rest)


def _clause(word: str, arms: list[str], count: int, baseline: str) -> str:
    """Return the clause on the arms of one outcome.

    Args:
        word: the outcome.
        arms: the arms.
        count: number of arms of all outcomes.
        baseline: the baseline arm.
    """
    named = say("lead_many", count=len(arms), all=count) if len(arms) > _NAMED else listed(arms)
    each = say("lead_each") if len(arms) > 1 else ""
    return say(f"lead_{word}", arms=named, each=each, baseline=baseline)


def scope(results: Results) -> str:
    """Return the clause on what every arm may spend, and over how many seeds."""
    seeds = [verdict.n for verdict in results.verdicts if verdict.n]
    spent = numbers.budget(results.budget)
    if not seeds:
        return say("lead_budget", budget=spent)
    return say("lead_scope", budget=spent, seeds=numbers.span(seeds, str))
