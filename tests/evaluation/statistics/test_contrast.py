"""Contrasts of arms, and differences of differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdjax.errors import InputError
from kdjax.evaluation.statistics import (
    contrast_differences,
    difference_of_differences,
    judge_contrast,
)
from kdjax.evaluation.statistics.contrast import claim_verdict
from tests.support.doctests import check_example

VALUES = {
    "a": {0: 3.0, 1: 3.2, 2: 2.9},
    "b": {0: 2.0, 1: 2.1, 2: 2.2, 3: 9.0},
    "c": {0: 1.0, 1: 1.5, 2: 1.0},
}


def test_contrast_is_the_weighted_sum_of_each_shared_seed() -> None:
    actual = contrast_differences(VALUES, {"a": 1.0, "b": -0.5, "c": -0.5})
    np.testing.assert_allclose(actual, [1.5, 1.4, 1.3])


def test_contrast_of_an_arm_without_values_has_no_seeds() -> None:
    assert contrast_differences({**VALUES, "d": {}}, {"a": 1.0, "d": -1.0}) == ()


def test_difference_of_differences_is_paired_across_studies() -> None:
    first = (VALUES["a"], VALUES["b"])
    second = (VALUES["a"], VALUES["c"])
    # (3 - 2) - (3 - 1), (3.2 - 2.1) - (3.2 - 1.5), (2.9 - 2.2) - (2.9 - 1).
    np.testing.assert_allclose(difference_of_differences(first, second), [-1.0, -0.6, -1.2])


def test_interval_and_p_value_of_a_contrast_equal_scipy() -> None:
    weights = {"a": 1.0, "b": -0.5, "c": -0.5}
    tested = judge_contrast(VALUES, weights, confidence=0.95).outcome
    expected = stats.ttest_1samp([1.5, 1.4, 1.3], 0.0)
    interval = expected.confidence_interval(0.95)
    assert tested.p_value == pytest.approx(expected.pvalue)
    assert (tested.low, tested.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    "weights", [{}, {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}, {"a": float("nan"), "b": 1.0}]
)
def test_weights_that_are_no_contrast_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match="weights"):
        judge_contrast(VALUES, weights, confidence=0.95)


def test_claim_is_read_in_its_direction() -> None:
    weights = {"a": 1.0, "b": -1.0}
    lower = judge_contrast(VALUES, weights, confidence=0.9, better="lower", direction="worse")
    higher = judge_contrast(VALUES, weights, confidence=0.9, better="higher", direction="worse")
    assert (lower.claim, higher.claim) == ("SUPPORTED", "REFUTED")
    assert claim_verdict("TIES", "worse") == "TIES"


def test_example_of_judge_contrast_prints_what_it_says() -> None:
    check_example(judge_contrast, {"judge_contrast": judge_contrast})
