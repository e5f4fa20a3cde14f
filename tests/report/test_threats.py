"""Threats to validity: each is seen where it is, and not where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kdjax.data.contamination.check import Contamination, Overlap
from kdjax.report import study_page, threats
from kdjax.results.runs import Divergence
from kdjax.results.study import Results
from kdjax.results.text import TokenRates
from tests.report.page import Page
from tests.report.results import study


@pytest.fixture(scope="module")
def results() -> Results:
    return study(seeds=5)


def titles(results: Results) -> set[str]:
    return {threat.title for threat in threats.threats(results)}


def text_of(results: Results, title: str) -> str:
    (threat,) = [threat for threat in threats.threats(results) if threat.title == title]
    return threat.text


def with_runs(results: Results, **changes: object) -> Results:
    runs = [replace(run, **changes) if run.arm == "minilm" else run for run in results.runs]
    return replace(results, runs=tuple(runs))


def unknown(results: Results) -> Results:
    rates = TokenRates({"train": 0.034, "validation": 0.2}, by_word=1.5, by_character=0.25)
    return replace(results, corpus=replace(results.corpus, token_rates=rates))


def contaminated(results: Results) -> Results:
    in_text = Overlap("sst2", "sst2", "reported", "", 872, 300, ("dev.tsv, line 5",))
    return replace(results, contamination=Contamination(1, "corpus", "tasks", "", (in_text,)))


def diverged(results: Results) -> Results:
    return with_runs(results, diverged=Divergence(7, "loss"))


@pytest.mark.parametrize(
    ("title", "change", "words"),
    [
        ("Memorised text", lambda r: with_runs(r, epochs=12.0), "minilm (12)"),
        ("Unknown tokens", unknown, "20%"),
        ("Contaminated tasks", contaminated, "300 of 872"),
        ("Diverged runs", diverged, "minilm diverged"),
    ],
)
def test_threat_is_seen_where_it_is(
    results: Results, title: str, change: Callable[[Results], Results], words: str
) -> None:
    assert title not in titles(results)
    assert words in text_of(change(results), title)


def test_few_seeds_are_seen() -> None:
    assert "3 seeds" in text_of(study(seeds=3), "Few seeds")
    assert "Few seeds" not in titles(study(seeds=5))


def test_teacher_that_a_student_surpasses_is_seen(results: Results) -> None:
    assert "Lower held-out MLM loss" not in text_of(results, "Another kind of teacher")
    assert results.teacher is not None
    teacher = replace(results.teacher, mlm_loss=9.0)
    assert "in every seed: scratch and logit" in text_of(
        replace(results, teacher=teacher), "Another kind of teacher"
    )


def test_page_lists_threats_and_what_was_looked_for(results: Results) -> None:
    page = Page(study_page.html(unknown(results)))
    assert "Unknown tokens" in page.text
    for title in threats.threats_in_words():
        assert title.lower() in page.text
