"""Words and epochs of runs, beside those of the teacher behind them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdjax.report import terminal, usage, words_seen
from kdjax.report.usage import TableCell
from kdjax.results.study import Results
from kdjax.results.teacher_facts import PretrainingFacts
from tests.report.results import study

SEEN = 70_000
TEACHERS = 400_000


def with_words(results: Results, teacher: PretrainingFacts | None) -> Results:
    """Give every run `SEEN` words, a thousand more a seed, and the teacher its training."""
    runs = [replace(run, words_seen=SEEN + 1000 * run.seed) for run in results.runs]
    assert results.teacher is not None
    facts = replace(results.teacher, pretraining=teacher)
    return replace(results, runs=tuple(runs), teacher=facts)


@pytest.fixture(scope="module")
def plain() -> Results:
    return study()


@pytest.fixture(scope="module")
def trained_here(plain: Results) -> Results:
    return with_words(plain, PretrainingFacts(1, 1.0, 10**12, 500_000, 3.25, TEACHERS))


@pytest.fixture(scope="module")
def from_elsewhere(plain: Results) -> Results:
    return with_words(plain, None)


def cell(results: Results, arm: str, name: str) -> TableCell:
    table = usage.measures(results)
    names = [column.name for column in table.columns]
    return table.rows[arm][names.index(name)]


def test_words_of_an_arm_stand_with_its_teachers(trained_here: Results) -> None:
    # The mean over seeds 0, 1 and 2.
    assert cell(trained_here, "minilm", "words seen") == ("71,000", "471,000 with the teacher's")
    assert cell(trained_here, "scratch", "words seen") == ("71,000", "")


def test_epochs_of_an_arm_stand_with_its_teachers(trained_here: Results) -> None:
    assert cell(trained_here, "minilm", "epochs") == ("0.05", "teacher 3.25")
    assert cell(trained_here, "scratch", "epochs") == ("0.11", "")


def test_teacher_from_elsewhere_is_said_to_be_unknown(from_elsewhere: Results) -> None:
    assert cell(from_elsewhere, "minilm", "words seen") == ("71,000", "teacher's not known")
    assert cell(from_elsewhere, "minilm", "epochs")[1] == "teacher's not known"
    run = next(run for run in from_elsewhere.runs if run.arm == "minilm")
    assert words_seen.words_with_teacher(from_elsewhere, run) is None


def test_run_without_a_teacher_has_its_own_words_alone(from_elsewhere: Results) -> None:
    run = next(run for run in from_elsewhere.runs if run.arm == "scratch")
    assert words_seen.words_with_teacher(from_elsewhere, run) == run.words_seen == SEEN


def test_student_has_the_words_of_its_own_one_of_several_teachers(trained_here: Results) -> None:
    facts = trained_here.teacher
    assert facts is not None
    members = []
    for number in (1, 2):
        training = PretrainingFacts(number, 1.0, 10**12, 5, 1.0, 100 * number)
        members.append(replace(facts, pretraining=training))
    results = replace(trained_here, teacher=replace(facts, teachers=tuple(members)))
    by_seed = {run.seed: run for run in results.runs if run.arm == "logit"}
    assert words_seen.words_with_teacher(results, by_seed[0]) == SEEN + 100
    assert words_seen.words_with_teacher(results, by_seed[1]) == SEEN + 1000 + 200
    assert words_seen.words_with_teacher(results, by_seed[2]) == SEEN + 2000 + 100


def test_terminal_shows_words_and_what_the_teacher_adds(
    trained_here: Results, from_elsewhere: Results
) -> None:
    assert words_seen.terminal_words(trained_here, "logit") == ("71,000", "400,000")
    assert words_seen.terminal_words(trained_here, "scratch") == ("71,000", "")
    assert words_seen.terminal_words(from_elsewhere, "logit") == ("71,000", "not known")
    assert terminal.summary(trained_here)


def test_results_without_a_count_have_no_column(plain: Results) -> None:
    assert not words_seen.has_word_counts(plain)
    names = [column.name for column in usage.measures(plain).columns]
    assert "words seen" not in names
    assert "epochs" in names
