"""Words that runs have seen, and those that the teacher had seen before."""

from __future__ import annotations

from kdjax.report import numbers
from kdjax.report.averages import averages, mean_if_known, runs, text_or_dash
from kdjax.results.runs import RunResult
from kdjax.results.study import Results
from kdjax.results.teacher_facts import PretrainingFacts

WordCells = dict[str, tuple[str, str]]
"""Arm -> a figure, and what stands below it."""


def has_word_counts(results: Results) -> bool:
    """Return whether the words of every run are known: earlier versions counted none."""
    return all(run.words_seen is not None for run in results.runs)


def words_with_teacher(results: Results, run: RunResult) -> int | None:
    """Count the words that a run has seen, with those that its teacher was pretrained on.

    Args:
        results: the content of results.json.
        run: one of its runs.

    Returns:
        The run's own where its arm needs no teacher; None where one of the two is not known.
    """
    if run.words_seen is None or not results.arms[run.arm].needs_teacher:
        return run.words_seen
    training = pretraining_of(results, run.seed)
    if training is None or training.words is None:
        return None
    return run.words_seen + training.words


def pretraining_of(results: Results, seed: int) -> PretrainingFacts | None:
    """Return how the teacher of a seed's student was trained; None: not by kdjax.

    Args:
        results: the content of results.json; of n teachers, a seed's is number seed modulo n.
        seed: seed of the student.
    """
    if results.teacher is None:
        return None
    # A student learns from teacher number (seed modulo n) of n teachers.
    members = results.teacher.teachers or (results.teacher,)
    return members[seed % len(members)].pretraining


def word_cells(results: Results) -> WordCells:
    """Return for each arm the words of the mean run, below them those with the teacher's."""
    words_seen = averages(results, lambda run: run.words_seen or 0)
    cells: WordCells = {}
    for arm, words in words_seen.items():
        note = ""
        if results.arms[arm].needs_teacher:
            total = mean_if_known(words_with_teacher(results, run) for run in runs(results, arm))
            note = "teacher's not known"
            if total is not None:
                note = f"{numbers.count(total)} with the teacher's"
        cells[arm] = (numbers.count(words), note)
    return cells


def epoch_cells(results: Results) -> WordCells:
    """Return for each arm the epochs of the mean run, below them its teacher's of its own text."""
    epochs_seen = averages(results, lambda run: run.epochs)
    cells: WordCells = {}
    for arm, epochs in epochs_seen.items():
        note = ""
        if results.arms[arm].needs_teacher:
            teachers = [pretraining_of(results, run.seed) for run in runs(results, arm)]
            passes = mean_if_known(None if facts is None else facts.epochs for facts in teachers)
            note = f"teacher {passes:.2f}" if passes is not None else "teacher's not known"
        cells[arm] = (f"{epochs:.2f}", note)
    return cells


def terminal_words(results: Results, arm: str) -> tuple[str, str]:
    """Return as text the words that an arm's mean run and its teacher have seen.

    Args:
        results: the content of results.json.
        arm: name of the arm.

    Returns:
        The run's own words, and those of the teacher's pretraining: empty where the arm needs none.
    """
    words_seen = mean_if_known(run.words_seen for run in runs(results, arm))
    shown = text_or_dash(numbers.count, words_seen)
    if words_seen is None or not results.arms[arm].needs_teacher:
        return shown, ""
    total = mean_if_known(words_with_teacher(results, run) for run in runs(results, arm))
    return shown, "not known" if total is None else numbers.count(total - words_seen)
