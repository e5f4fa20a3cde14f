"""Accuracy and Pearson's r."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdjax.evaluation.metric import score


def test_score_of_classes_is_their_accuracy() -> None:
    assert score(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), regression=False) == 0.75


def test_score_of_numbers_is_pearsons_r() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    assert score(x, y, regression=True) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert score(3 * x + 7, x, regression=True) == pytest.approx(1)
    assert score(-x, x, regression=True) == pytest.approx(-1)


def test_score_of_constant_numbers_is_zero() -> None:
    assert score(np.full(5, 2.5), np.arange(5), regression=True) == 0
    assert score(np.arange(5), np.full(5, 2.5), regression=True) == 0
