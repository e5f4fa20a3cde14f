"""The figures a task is scored by: GLUE's metrics by name, and what a constant is worth by them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kdjax.data.tasks.task import Task
from kdjax.errors import InputError

Values = NDArray[Any]
"""`[N]`: class indices, or numbers."""
ROUNDING = 1e-9
"""How far beyond the end of its range a value may be rounded."""


@dataclass(frozen=True)
class Metric:
    """One metric; more is better.

    Attributes:
        label: name for people.
        unit: what its values are.
        lowest: the lowest value that it can have; the highest is 1.
        of_numbers: whether it compares numbers; else it compares classes.
        compute: takes predictions and truth, `[N]` each, and returns the value.
    """

    label: str
    unit: str
    lowest: float
    of_numbers: bool
    compute: Callable[[Values, Values], float]


def _accuracy(predicted: Values, truth: Values) -> float:
    return float(accuracy_score(truth, predicted))


def _f1(predicted: Values, truth: Values) -> float:
    """Compute F1 of class 1; 0 where it is neither predicted nor there."""
    return float(f1_score(truth, predicted, labels=[1], average=None, zero_division=0)[0])


def _f1_macro(predicted: Values, truth: Values) -> float:
    """Compute the mean over classes of their F1."""
    return float(f1_score(truth, predicted, average="macro", zero_division=0))


def _matthews(predicted: Values, truth: Values) -> float:
    """Compute Matthews' correlation; 0 where one side is constant."""
    # The library warns of a single label and may divide 0 by 0 there.
    if np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(matthews_corrcoef(truth, predicted))


def _pearson(predicted: Values, truth: Values) -> float:
    return _correlation(stats.pearsonr, predicted, truth)


def _spearman(predicted: Values, truth: Values) -> float:
    return _correlation(stats.spearmanr, predicted, truth)


def _correlation(correlate: Callable[..., Any], predicted: Values, truth: Values) -> float:
    """Correlate two lists of numbers; 0 where one has no spread."""
    x = predicted.astype(np.float64)
    y = truth.astype(np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    # The library warns of spreads that are lost in rounding, and may return no number.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(correlate(x, y).statistic)
    if not np.isfinite(value):
        return 0.0
    return value


METRICS = {
    "accuracy": Metric("accuracy", "share of rows", 0.0, False, _accuracy),
    "f1": Metric("F1", "F1 of the second class, 0 to 1", 0.0, False, _f1),
    "f1_macro": Metric("macro F1", "mean F1 of the classes, 0 to 1", 0.0, False, _f1_macro),
    "matthews": Metric("Matthews correlation", "correlation, -1 to 1", -1.0, False, _matthews),
    "pearson": Metric("Pearson's r", "correlation, -1 to 1", -1.0, True, _pearson),
    "spearman": Metric("Spearman's ρ", "correlation, -1 to 1", -1.0, True, _spearman),
}
"""Name -> metric; by scikit-learn and SciPy."""


def scores(metrics: Sequence[str], predicted: Values, truth: Values) -> dict[str, float]:
    """Compute metrics of predictions.

    Args:
        metrics: names of `METRICS`.
        predicted: `[N]`: predicted class indices, or numbers; N at least 1.
        truth: `[N]`: the right class indices, or numbers.

    Returns:
        Name -> value. A constant, on either side, has the correlation 0; F1 is 0 where class 1 is
        neither predicted nor there.
    """
    return {name: METRICS[name].compute(predicted, truth) for name in metrics}


def check_values(values: Mapping[str, float], where: str) -> None:
    """Check that metrics have values that they can have.

    Args:
        values: name of a metric -> its value.
        where: the file and the field that they are read from, for messages.

    Raises:
        InputError: there is none, one is of no metric, or lies outside its metric's range.
    """
    if not values:
        raise InputError(f"{where} is empty, expected the value of a metric")
    for name, value in values.items():
        if name not in METRICS:
            raise InputError(f"{where} has {name!r:.60}, expected some of {', '.join(METRICS)}")
        check_mean(value, (name,), f"{where}.{name}")


def check_mean(value: float, metrics: Sequence[str], where: str) -> None:
    """Check that a value can be the mean of some metrics.

    Args:
        value: the value.
        metrics: names of `METRICS`, at least one.
        where: the file and the field that it is read from, for messages.

    Raises:
        InputError: it lies outside the range of such a mean.
    """
    lowest = float(np.mean([METRICS[name].lowest for name in metrics]))
    if not lowest - ROUNDING <= value <= 1 + ROUNDING:
        raise InputError(f"{where} is {value}, expected {lowest:g} to 1")


def task_score(metrics: Sequence[str], predicted: Values, truth: Values) -> float:
    """Compute the score of a task: the mean of its metrics, as in GLUE (arXiv 1804.07461).

    Args:
        metrics: names of `METRICS`, at least one.
        predicted: `[N]`: predicted class indices, or numbers.
        truth: `[N]`: the right class indices, or numbers.
    """
    return float(np.mean(list(scores(metrics, predicted, truth).values())))


def best_constant(task: Task) -> float | int:
    """Choose the answer to give where nothing is known of the text, by the training rows.

    Returns:
        The class index that scores best on the training rows by the task's metrics, of equals the
        more frequent one and then the first; the mean of their labels for numbers.
    """
    labels = np.asarray(task.train.labels)
    if task.regression:
        return float(labels.mean(dtype=np.float64))
    # Correlations give every constant the same score: there the most frequent class is the answer.
    counts = np.bincount(labels, minlength=len(task.classes))
    scores_by_class = _constant_scores(task, labels)
    return max(range(len(counts)), key=lambda index: (scores_by_class[index], counts[index]))


def constant_score(task: Task, truth: Values) -> float:
    """Compute the most that one answer for all rows scores on them, by the task's metrics.

    The answer is chosen by these rows, so that no model that always says the same scores more: the
    class that is best by F1 need not be the most frequent one.

    Args:
        task: the task.
        truth: `[N]`: the right class indices, or numbers, where every constant is worth the same.
    """
    if task.regression:
        return task_score(task.metrics, np.full(len(truth), best_constant(task)), truth)
    return max(_constant_scores(task, truth))


def baseline(task: Task) -> dict[str, float]:
    """Score each reported set of a task's rows by the best constant answer.

    Returns:
        Name of a reported set of rows, such as `dev` -> its score by the task's own metrics.
    """
    values = {}
    for result, split in task.reported.items():
        values[result] = constant_score(task, np.asarray(split.labels))
    return values


def _constant_scores(task: Task, truth: Values) -> list[float]:
    """Compute what each class scores when it is the answer to all rows, by class index."""
    values = []
    for index in range(len(task.classes)):
        values.append(task_score(task.metrics, np.full(len(truth), index), truth))
    return values
