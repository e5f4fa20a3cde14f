"""Suites of labelled tasks: which tasks they have, with their columns, classes and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdjax.config.values import expect
from kdjax.errors import InputError, nearest

ANY_NUMBER = (-math.inf, math.inf)
"""Bounds of a label that may be any number."""
SUITE_TITLES = {"glue": "GLUE", "babylm": "BabyLM"}
"""Names of suites for people."""
LEFT_OUT = {"glue": ("wnli",), "babylm": ()}
"""Tasks that are no part of a suite's mean. WNLI's dev rows contradict its training rows, so that
what it measures is chance (FAQ 12 of gluebenchmark.com)."""
MISMATCHED = "mnli-mm"
"""Name of GLUE's result on MNLI's mismatched rows, whose genres no training row has; the matched
rows' is `mnli`."""


@dataclass(frozen=True)
class SuiteTask:
    """A task of a suite.

    Attributes:
        name: name of the task.
        title: official name: that of its directory, and of its file for GLUE's server.
        columns: columns of its text, or of its two texts.
        classes: names of the classes in the order of their official indices; empty for a
            regression.
        metrics: names of the metrics, of which the score is the mean.
        named: whether the official files and GLUE's server have classes by name; else by index.
        bounds: smallest and largest label of a regression.
        mismatched: name of the result on a second set of dev and test rows; empty: there is none.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    named: bool = False
    bounds: tuple[float, float] = ANY_NUMBER
    mismatched: str = ""

    @property
    def results(self) -> tuple[tuple[str, str], ...]:
        """Return the results as (name, what the names of their dev and test splits end in)."""
        if not self.mismatched:
            return ((self.name, ""),)
        return ((self.name, "_matched"), (self.mismatched, "_mismatched"))

    def class_of(self, label: str) -> str:
        """Return the name of a class that is given by name or by index; other labels stay."""
        if label in self.classes:
            return label
        # As the files have them: 1, and neither 01 nor the digits of another script.
        indices = [str(index) for index in range(len(self.classes))]
        if label in indices:
            return self.classes[indices.index(label)]
        return label


ENTAILMENT = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
_QUESTIONS = ("question1", "question2")
_PREMISE = ("premise", "hypothesis")
_EQUIVALENT = ("not_equivalent", "equivalent")
_DUPLICATE = ("not_duplicate", "duplicate")
_NLI = ("entailment", "neutral", "contradiction")
_F1 = ("accuracy", "f1")

GLUE = (
    SuiteTask("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    SuiteTask("sst2", "SST-2", ("sentence",), ("negative", "positive")),
    SuiteTask("mrpc", "MRPC", _SENTENCES, _EQUIVALENT, _F1),
    SuiteTask("qqp", "QQP", _QUESTIONS, _DUPLICATE, _F1),
    SuiteTask("stsb", "STS-B", _SENTENCES, (), ("pearson", "spearman"), bounds=(0.0, 5.0)),
    SuiteTask("mnli", "MNLI", _PREMISE, _NLI, named=True, mismatched=MISMATCHED),
    SuiteTask("qnli", "QNLI", ("question", "sentence"), ENTAILMENT, named=True),
    SuiteTask("rte", "RTE", _SENTENCES, ENTAILMENT, named=True),
    SuiteTask("wnli", "WNLI", _SENTENCES, ("not_entailment", "entailment")),
)
"""GLUE's tasks (Wang et al. 2019, arXiv 1804.07461); columns and order of classes as on Hugging
Face's hub and in TFDS."""

# The texts of multirc and wsc are put together of several fields (`kdjax.data.tasks.babylm`).
BABYLM = (
    SuiteTask("boolq", "boolq", ("question", "passage"), ("false", "true")),
    SuiteTask("multirc", "multirc", ("question", "paragraph"), ("false", "true")),
    SuiteTask("rte", "rte", _SENTENCES, ENTAILMENT),
    SuiteTask("wsc", "wsc", ("question", "text"), ("false", "true")),
    SuiteTask("mrpc", "mrpc", _SENTENCES, _EQUIVALENT, ("f1",)),
    SuiteTask("qqp", "qqp", _QUESTIONS, _DUPLICATE, ("f1",)),
    SuiteTask("mnli", "mnli", _PREMISE, _NLI),
)
"""The tasks of BabyLM 2025's evaluation pipeline, with the metrics that it chooses models by."""
SUITES = {"glue": GLUE, "babylm": BABYLM}
"""The tasks of each suite."""


def suite_tasks(suite: str, chosen: Sequence[str] = ()) -> tuple[SuiteTask, ...]:
    """Return the tasks of a suite.

    Args:
        suite: `glue`, `babylm`, or empty for none.
        chosen: names of the tasks to return; empty: all.
    """
    return tuple(task for task in SUITES.get(suite, ()) if not chosen or task.name in chosen)


def result_names(suite: str, chosen: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a suite's results in its order: its tasks', and GLUE's `mnli-mm`.

    Args:
        suite: name of the suite; empty: none.
        chosen: names of the tasks that are read; empty: all.
    """
    names: list[str] = []
    for task in suite_tasks(suite, chosen):
        names += [name for name, _ in task.results]
    return tuple(names)


def title_of(suite: str, result: str) -> str:
    """Return the official name of a result: its task's; of MNLI's mismatched rows `MNLI-mm`.

    Args:
        suite: name of the suite.
        result: name of the result; one that is not the suite's is returned as it is.
    """
    for task in suite_tasks(suite):
        if result == task.name:
            return task.title
        if result == task.mismatched:
            return f"{task.title}-mm"
    return result


def has_mean(suite: str, chosen: Sequence[str]) -> bool:
    """Return whether all tasks of a suite's mean are read.

    Args:
        suite: name of the suite; empty: none.
        chosen: names of the tasks that are read; empty: all.
    """
    if not suite:
        return False
    counted = {task.name for task in SUITES[suite]} - set(LEFT_OUT[suite])
    return not chosen or counted <= set(chosen)


def check_suite(suite: str, chosen: Sequence[str], place: str, tasks: Mapping[str, object]) -> None:
    """Check the settings of a suite.

    Args:
        suite: name of the suite; empty: none.
        chosen: `evaluation.suite_tasks`.
        place: directory of the suite's data.
        tasks: the user's own tasks by name (`evaluation.tasks`).

    Raises:
        InputError: a suite without its data, an unknown task, or a name that is taken.
    """
    setting_name = "evaluation.suite_tasks"
    if not suite:
        expect(not chosen, setting_name, list(chosen), "none without evaluation.suite")
        return
    expected = "the directory of the suite's data"
    expect(bool(place), f"evaluation.suite is {suite} and evaluation.{suite}", "empty", expected)
    names = [task.name for task in SUITES[suite]]
    for name in chosen:
        if name not in names:
            hint = nearest(str(name), names)
            raise InputError(f"{setting_name} has {name!r:.80}{hint}, expected tasks of {suite}")
    expect(len(set(chosen)) == len(chosen), setting_name, list(chosen), "each name once")
    for name in (suite, *result_names(suite, chosen)):
        if name in tasks:
            raise InputError(
                f"evaluation.tasks has {name!r}, the name of a result of {suite}, expected another"
            )
