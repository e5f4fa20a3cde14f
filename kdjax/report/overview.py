"""A study at a glance: every arm against every other on an endpoint, and each arm's scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdjax.report import case_words, numbers, score_tables, summary
from kdjax.report.lead import compared_endpoints, endpoint_of
from kdjax.report.score_tables import ScoreCell
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint


@dataclass(frozen=True)
class MatrixCell:
    """One arm against another.

    Attributes:
        symbol: sign of what the arm of the row does to the arm of the column; empty where the two
            were not compared.
        interval: interval of their difference as text; empty without one.
        sentence: the verdict as a sentence.
        cases: sign and sentence under each way to pay for the teacher, as JSON; empty where there
            is one way.
    """

    symbol: str = ""
    interval: str = ""
    sentence: str = ""
    cases: str = ""


@dataclass(frozen=True)
class Matrix:
    """Every arm against every other on one endpoint.

    Attributes:
        endpoint: the endpoint.
        arms: names of the arms, of rows and of columns alike.
        rows: arm -> a cell for each arm; None where a row meets its own column.
    """

    endpoint: MeasuredEndpoint
    arms: tuple[str, ...]
    rows: Mapping[str, Sequence[MatrixCell | None]]


@dataclass(frozen=True)
class Overview:
    """Each arm's scores on the endpoints that sentences are of, and what it costs.

    Attributes:
        endpoints: the endpoints, in the order of the columns.
        rows: arm -> a cell for each endpoint, the baseline arm first.
        costs: way to pay for the teacher -> arm -> FLOPs of a run, and beside them how many times
            the baseline arm's.
    """

    endpoints: Sequence[MeasuredEndpoint]
    rows: Mapping[str, Sequence[ScoreCell]]
    costs: Mapping[str, Mapping[str, tuple[str, str]]]


def matrices(results: Results) -> list[Matrix]:
    """Return a matrix for each endpoint with verdicts, that of the page's answer first.

    Args:
        results: the content of results.json.
    """
    endpoints = compared_endpoints(results)
    first = endpoint_of(results)
    endpoints.sort(key=lambda endpoint: endpoint != first)
    return [_matrix(results, endpoint) for endpoint in endpoints]


def _matrix(results: Results, endpoint: MeasuredEndpoint) -> Matrix:
    """Return the matrix of an endpoint, of the arms that it means something for."""
    arms = [arm for arm in score_tables.ordered_arms(results) if arm in endpoint.arms]
    rows: dict[str, list[MatrixCell | None]] = {}
    for arm in arms:
        rows[arm] = []
        for other in arms:
            rows[arm].append(None if other == arm else _cell(results, endpoint, arm, other))
    return Matrix(endpoint, tuple(arms), rows)


def _cell(results: Results, endpoint: MeasuredEndpoint, arm: str, other: str) -> MatrixCell:
    """Return the cell of two arms."""
    by_case = case_words.relations(results, endpoint, arm, other)
    if not by_case:
        return MatrixCell()
    as_run = by_case[case_words.case_names(results)[0]]
    cases = {name: [relation.symbol, relation.sentence] for name, relation in by_case.items()}
    return MatrixCell(
        as_run.symbol,
        as_run.interval,
        as_run.sentence,
        json.dumps(cases, ensure_ascii=False) if len(cases) > 1 else "",
    )


def signs(results: Results) -> dict[str, str]:
    """Return the signs that a study's matrices may have, and what they stand for."""
    words: set[str] = {verdict.verdict for verdict in results.verdicts}
    for case in results.cases:
        words.update(row.verdict for row in case.verdicts)
    # A pair has two sides.
    shown = words | {"LOSES" if word == "BEATS" else word for word in words}
    if "AT LEAST TIES" in words:
        shown.add("AT MOST TIES")
    return {sign: word for word, sign in case_words.SYMBOLS.items() if word in shown}


def overview(results: Results) -> Overview:
    """Return each arm's scores and costs.

    Args:
        results: the content of results.json.
    """
    endpoints = summary.main_endpoints(results)
    rows = {}
    for arm in score_tables.ordered_arms(results):
        rows[arm] = [score_tables.cell(results, arm, endpoint) for endpoint in endpoints]
    costs = {}
    for case in results.cases:
        costs[case.case] = {arm: _cost(results, case.costs, arm) for arm in results.arms}
    return Overview(endpoints, rows, costs)


def _cost(results: Results, costs: Mapping[str, float], arm: str) -> tuple[str, str]:
    """Return what a run of an arm costs, and how many times the baseline arm's that is."""
    baseline = costs[results.baseline_arm]
    ratio = numbers.ratio(costs[arm] / baseline) if baseline else ""
    return numbers.flops(costs[arm]), ratio
