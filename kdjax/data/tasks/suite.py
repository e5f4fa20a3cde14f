"""Suites of tasks: which tasks they have, with their columns, classes and metrics, and what a suite
scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdjax.config.tasks import LEFT_OUT, MISMATCHED
from kdjax.data.tasks.raw import ANY_NUMBER, RawTask, RowSource, SplitName

SUITE_TITLES = {"glue": "GLUE", "babylm": "BabyLM"}
"""Names of suites for people."""
ENTAILMENT = ("entailment", "not_entailment")


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

    @property
    def split_names(self) -> tuple[tuple[SplitName, str, str], ...]:
        """Return the splits as (kind, result, what its name ends in), the training split first."""
        names: list[tuple[SplitName, str, str]] = [("train", self.name, "")]
        names += [("dev", result, ending) for result, ending in self.results]
        names += [("test", result, ending) for result, ending in self.results]
        return tuple(names)

    def raw(self, sources: tuple[RowSource, ...]) -> RawTask:
        """Return the task with its rows."""
        return RawTask(
            self.name,
            self.classes,
            self.metrics,
            len(self.columns) == 2,
            sources,
            self.bounds,
            from_suite=True,
        )

    def class_of(self, label: str) -> str:
        """Return the name of a class that is given by name or by index; other labels stay."""
        if label in self.classes or not label.isdecimal():
            return label
        index = int(label[:4])
        return self.classes[index] if index < len(self.classes) else label


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


def suite_tasks(suite: str, chosen: tuple[str, ...] = ()) -> tuple[SuiteTask, ...]:
    """Return the tasks of a suite.

    Args:
        suite: `glue`, `babylm`, or empty for none.
        chosen: names of the tasks to return; empty: all.
    """
    tasks = {"glue": GLUE, "babylm": BABYLM}.get(suite, ())
    return tuple(task for task in tasks if not chosen or task.name in chosen)


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


def suite_mean(suite: str, scores: Mapping[str, float]) -> float | None:
    """Compute a suite's score: the mean over its tasks, without WNLI.

    GLUE's MNLI counts once, as the mean of its matched and mismatched score (arXiv 1804.07461).

    Args:
        suite: `glue` or `babylm`.
        scores: name of a result -> score, the mean of its metrics; results of other tasks, too.

    Returns:
        The mean; None where the score of a task is missing.
    """
    values = []
    for task in suite_tasks(suite):
        if task.name in LEFT_OUT[suite]:
            continue
        results = [result for result, _ in task.results]
        if not scores.keys() >= set(results):
            return None
        values.append(np.mean([scores[result] for result in results]))
    return float(np.mean(values))
