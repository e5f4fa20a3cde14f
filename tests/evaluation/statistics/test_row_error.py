"""The interval over seeds and rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdjax.errors import InputError
from kdjax.evaluation.statistics import crossed_interval, interval


def test_interval_equals_the_analysis_of_variance_by_hand() -> None:
    # Seed means 1 and 2; row means 1, 1.5, 2; rest -0.5, 0, 0.5 and its negative.
    d = np.array([[0.0, 1.0, 2.0], [2.0, 2.0, 2.0]])
    seeds_square = 3 * (0.5**2 + 0.5**2) / 1
    rows_square = 2 * (0.5**2 + 0 + 0.5**2) / 2
    rest_square = 4 * 0.5**2 / 2
    total = seeds_square + rows_square - rest_square
    # By Satterthwaite 0.9 degrees of freedom, of which one seed less than there are is the least.
    df = total**2 / (seeds_square**2 / 1 + rows_square**2 / 2 + rest_square**2 / 2)
    assert df == pytest.approx(0.9)
    half = stats.t.ppf(0.975, 1) * math.sqrt(total / 6)
    assert crossed_interval(d, 0.95) == pytest.approx((1.5, 1.5 - half, 1.5 + half))


def test_interval_covers_other_seeds_and_rows_where_that_over_seeds_does_not() -> None:
    rng = np.random.default_rng(0)
    studies = 400
    covered = 0
    covered_by_seeds = 0
    for _ in range(studies):
        of_seeds = rng.normal(0, 0.01, (5, 1))
        of_rows = rng.normal(0, 0.4, (1, 100))
        d = of_seeds + of_rows + rng.normal(0, 0.3, (5, 100))
        _, low, high = crossed_interval(d, 0.95)
        covered += low <= 0 <= high
        _, low, high = interval(d.mean(axis=1), 0.95)
        covered_by_seeds += low <= 0 <= high
    # Three standard errors of 95% in so many studies are 3.3 points.
    assert covered / studies > 0.917
    assert covered_by_seeds / studies < 0.85


def test_single_seed_or_row_is_refused() -> None:
    with pytest.raises(InputError, match=r"found 1 seed\(s\) and 3 row\(s\)"):
        crossed_interval(np.zeros((1, 3)), 0.95)


def test_equal_differences_give_no_width() -> None:
    assert crossed_interval(np.full((3, 4), 0.5), 0.95) == (0.5, 0.5, 0.5)
