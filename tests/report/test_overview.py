"""The first lines of a page, its matrix of arms, and the verdicts under other ways to pay."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kdjax.evaluation.statistics import OTHER_SIDE
from kdjax.report import case_words, lead, overview, study_page, summary
from kdjax.results.study import Results
from tests.report.page import Page
from tests.report.results import study


@pytest.fixture(scope="module")
def results() -> Results:
    return study(seeds=5, training=5 * 10**12)


def test_answer_is_two_short_sentences_at_most(results: Results) -> None:
    for text in lead.answers(results).values():
        assert text.count(". ") <= 1
        assert len(text) < 200
    assert lead.answers(results)["inference"] == (
        "logit, tinybert and minilm each BEATS scratch, by linear probes (topic)."
    )


def test_answer_is_by_the_primary_endpoint(results: Results) -> None:
    changed = replace(results, primary="fixed.sentiment")
    assert lead.endpoint_of(changed).name == "fixed.sentiment"
    assert lead.answers(changed)["inference"] == (
        "logit, tinybert and minilm against scratch: INCONCLUSIVE, by fine-tuning (sentiment)."
    )


def test_answer_counts_many_arms_and_names_few(results: Results) -> None:
    others = {f"arm{n}": results.arms["logit"] for n in range(4)}
    verdict = next(
        v for v in results.verdicts if v.endpoint == "probe.topic" and {v.a, v.b} >= {"logit"}
    )
    more = [replace(verdict, a="scratch", b=arm, verdict="LOSES") for arm in others]
    endpoints = []
    for endpoint in results.endpoints:
        endpoints.append(replace(endpoint, arms=(*endpoint.arms, *others)))
    changed = replace(
        results,
        arms={**results.arms, **others},
        verdicts=(*results.verdicts, *more),
        endpoints=tuple(endpoints),
        primary="probe.topic",
    )
    assert lead.answers(changed)["inference"].startswith("7 of 7 arms each BEATS scratch")


def test_matrix_has_each_verdict_from_both_sides(results: Results) -> None:
    for matrix in overview.matrices(results):
        for arm, cells in matrix.rows.items():
            for other, cell in zip(matrix.arms, cells, strict=True):
                if arm == other:
                    assert cell is None
                    continue
                difference = summary.difference(results, matrix.endpoint, arm, other)
                assert cell.symbol == case_words.SYMBOLS[difference.outcome]
                back = matrix.rows[other][matrix.arms.index(arm)]
                assert back.symbol == case_words.SYMBOLS[OTHER_SIDE[difference.outcome]]
                assert cell.sentence.startswith(f"{arm} against {other}, ")


def test_cells_tell_each_case_as_its_verdicts_do(results: Results) -> None:
    cases = {case.case: case for case in results.cases}
    (matrix,) = [m for m in overview.matrices(results) if m.endpoint.name == "probe.topic"]
    told = json.loads(matrix.rows["logit"][matrix.arms.index("scratch")].cases)
    assert list(told) == ["inference", "nothing", "training", "both"]
    for name in ("nothing", "training", "both"):
        (row,) = [
            row
            for row in cases[name].verdicts
            if row.endpoint == "probe.topic" and {row.a, row.b} == {"logit", "scratch"}
        ]
        assert row.a == "logit", "it does better"
        assert told[name][0] == case_words.SYMBOLS[row.verdict]
        assert name in told[name][1]


def test_costs_are_those_of_each_case(results: Results) -> None:
    page = Page(study_page.html(results))
    for arm in results.arms:
        cell = page.figures("Every arm on every endpoint", arm)["FLOPs of a runrelative to scratch"]
        for case in results.cases:
            mantissa, exponent = f"{case.costs[arm]:.2e}".split("e")
            assert f"{mantissa}e{int(exponent)}" in cell


def test_study_without_a_pair_has_no_matrix(results: Results) -> None:
    bare = replace(results, verdicts=(), cases=())
    assert overview.matrices(bare) == []
    assert lead.answers(bare) == {
        "as run": "Nothing was compared: a verdict needs two arms with an endpoint in common."
    }
