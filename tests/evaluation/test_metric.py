"""GLUE's metrics against SciPy, scikit-learn and numbers by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from kdjax.config.tasks import CLASS_METRICS, NUMBER_METRICS
from kdjax.data.tasks.task import Split, Task
from kdjax.errors import InputError
from kdjax.evaluation.metric import (
    METRICS,
    baseline,
    best_constant,
    check_mean,
    check_values,
    scores,
    task_score,
)

TRUTH = np.array([1, 1, 1, 0, 0, 1, 0, 1])
PREDICTED = np.array([1, 0, 1, 1, 0, 1, 0, 1])
"""4 true positives, 1 false negative, 1 false positive, 2 true negatives."""


def split(*labels: float) -> Split:
    """Make rows of one token each."""
    kind = np.float32 if isinstance(labels[0], float) else np.int32
    rows = len(labels)
    return Split(np.zeros(rows, np.int32), np.arange(rows + 1), None, np.array(labels, kind))


def test_metrics_of_settings_are_those_that_are_computed() -> None:
    of_numbers = {name for name, metric in METRICS.items() if metric.of_numbers}
    assert of_numbers == set(NUMBER_METRICS)
    assert METRICS.keys() - of_numbers == set(CLASS_METRICS)


def test_metrics_of_two_classes_are_those_of_a_table_by_hand() -> None:
    values = scores(("accuracy", "f1", "matthews"), PREDICTED, TRUTH)
    assert values["accuracy"] == pytest.approx(6 / 8)
    # 2 TP / (2 TP + FP + FN)
    assert values["f1"] == pytest.approx(8 / 10)
    # (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))
    assert values["matthews"] == pytest.approx((4 * 2 - 1 * 1) / np.sqrt(5 * 5 * 3 * 3))


def test_f1_is_of_class_1_also_among_three_and_macro_is_the_mean_over_classes() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 60))
    by_class = []
    for index in range(3):
        by_class.append(sklearn_metrics.f1_score(truth == index, predicted == index))
    assert scores(("f1",), predicted, truth)["f1"] == pytest.approx(by_class[1])
    assert scores(("f1_macro",), predicted, truth)["f1_macro"] == pytest.approx(np.mean(by_class))


def test_matthews_of_three_classes_is_the_correlation_of_indicators() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 3, (2, 60))
    # Gorodkin 2004: covariances of one-hot rows, summed over classes.
    one_hot = np.eye(3)
    x = one_hot[predicted] - one_hot[predicted].mean(0)
    y = one_hot[truth] - one_hot[truth].mean(0)
    expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert scores(("matthews",), predicted, truth)["matthews"] == pytest.approx(expected)


def test_correlations_are_those_of_moments_and_of_ranks() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 50))
    values = scores(("pearson", "spearman"), x, y)
    assert values["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    ranks = np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]
    assert values["spearman"] == pytest.approx(ranks)
    assert scores(("spearman",), np.exp(3 * x), x)["spearman"] == pytest.approx(1)
    assert scores(("pearson",), -x, x)["pearson"] == pytest.approx(-1)


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman"])
def test_constant_has_correlation_zero_on_either_side(name: str) -> None:
    spread = np.array([0, 1, 0, 1, 1])
    constant = np.full(5, 1)
    assert scores((name,), constant, spread) == {name: 0.0}
    assert scores((name,), spread, constant) == {name: 0.0}


@pytest.mark.parametrize("name", NUMBER_METRICS)
def test_spread_that_is_lost_in_rounding_gives_a_number(name: str) -> None:
    tiny = np.array([0, 1e-300, 2e-300])
    assert np.isfinite(scores((name,), tiny, np.array([1.0, 2.0, 3.0]))[name])


def test_f1_without_class_1_anywhere_is_zero() -> None:
    zeros = np.zeros(4, np.int32)
    assert scores(("f1",), zeros, zeros) == {"f1": 0.0}


def test_score_of_a_task_is_the_mean_of_its_metrics() -> None:
    expected = (6 / 8 + 8 / 10) / 2
    assert task_score(("accuracy", "f1"), PREDICTED, TRUTH) == pytest.approx(expected)


def test_baseline_is_the_best_constant_by_the_tasks_own_metrics() -> None:
    reported = {"a": split(1, 0, 2, 2, 1), "b": split(0, 0)}
    train = split(1, 1, 0, 2)
    task = Task("t", ("x", "y", "z"), ("accuracy", "f1"), train, split(0), reported)
    values = baseline(task)
    # Class 1 is predicted five times and right twice: precision 2/5, recall 1.
    assert values["a"] == pytest.approx((2 / 5 + 2 * 0.4 / 1.4) / 2)
    # Only class 0 is right there: an accuracy of 1, and no F1 of class 1.
    assert values["b"] == 0.5


def test_baseline_of_balanced_pairs_is_always_saying_the_class_of_f1() -> None:
    rows = split(0, 1, 0, 1)
    task = Task("pairs", ("different", "same"), ("accuracy", "f1"), rows, rows, {"pairs": rows})
    # Always "same" is right in half of the rows, with precision 1/2 and recall 1.
    assert baseline(task) == {"pairs": pytest.approx((1 / 2 + 2 / 3) / 2)}
    assert best_constant(task) == 1


def test_best_constant_counts_the_metric_before_the_frequency() -> None:
    frequent_different = split(0, 0, 0, 1, 1)
    f1 = Task("qqp", ("different", "same"), ("f1",), frequent_different, split(0), {})
    assert best_constant(f1) == 1
    accuracy = dataclasses.replace(f1, metrics=("accuracy",))
    assert best_constant(accuracy) == 0
    # Every constant has Matthews' correlation 0: the frequent class it is.
    matthews = dataclasses.replace(f1, metrics=("matthews",), train=split(0, 1, 1))
    assert best_constant(matthews) == 1


def test_no_constant_scores_more_than_the_baseline_whatever_the_training_rows() -> None:
    train = split(0, 0, 1)
    reported = split(1, 1, 0)
    task = Task("t", ("x", "y"), ("accuracy",), train, train, {"t": reported})
    assert baseline(task)["t"] == pytest.approx(2 / 3)


def test_baseline_of_numbers_is_zero_by_correlation() -> None:
    train = split(1.0, 2.0)
    reported = {"t": split(0.5, 0.7, 1.0)}
    task = Task("t", (), ("pearson", "spearman"), train, split(1.0), reported)
    assert baseline(task) == {"t": 0.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"accuracy": 7.5}, r"a.json: topic.accuracy is 7.5, expected 0 to 1"),
        ({"accuracy": 0.5, "f1": -0.1}, r"topic.f1 is -0.1, expected 0 to 1"),
        ({"pearson": -1.01}, r"topic.pearson is -1.01, expected -1 to 1"),
        ({"accuracy": float("nan")}, r"topic.accuracy is nan, expected 0 to 1"),
        ({"bleu": 0.5}, r"topic has 'bleu', expected some of accuracy, f1, .*spearman"),
        ({}, r"topic is empty"),
    ],
)
def test_value_outside_its_metrics_range_is_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_values(values, "a.json: topic")


def test_ends_of_a_metrics_range_are_within_it() -> None:
    check_values({"accuracy": 0.0, "f1_macro": 1.0, "matthews": -1.0}, "a.json: topic")
    # The mean of an accuracy and a correlation may be as low as -1/2.
    check_mean(-0.5, ("accuracy", "pearson"), "a.json: selection")
    with pytest.raises(InputError, match=r"selection is -0.51, expected -0.5 to 1"):
        check_mean(-0.51, ("accuracy", "pearson"), "a.json: selection")
