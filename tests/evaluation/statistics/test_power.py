"""What a study can see: power, the smallest detectable difference, and the seeds it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.verdicts import detectable_is_found
from kdjax.evaluation.statistics import (
    PairedTest,
    judge_tests,
    power,
    seeds_needed,
    smallest_detectable,
)


@pytest.mark.parametrize(
    ("effect", "n", "level", "expected"),
    [
        # Cohen 1988 and G*Power: d = 0.5 at n = 34, d = 0.8 at n = 15, two-sided 5%.
        (0.5, 34, 0.05, 0.8078),
        (0.8, 15, 0.05, 0.8213),
    ],
)
def test_power_equals_published_values(
    effect: float, n: int, level: float, expected: float
) -> None:
    assert power(effect, 1.0, n, level) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("n", "level"), [(2, 0.0004), (3, 0.01), (5, 0.05), (10, 0.001)])
def test_power_equals_the_integral_over_the_spread(n: int, level: float) -> None:
    # A noncentral t is (z + c) / sqrt(v / df): integrate the normal tail over quantiles of v.
    df = n - 1
    effect = 3.0
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    scale = np.sqrt(stats.chi2.ppf(quantiles, df) / df)
    threshold = stats.t.isf(level / 2, df)
    integral = float(stats.norm.sf(threshold * scale - effect * math.sqrt(n)).mean())
    assert power(effect, 1.0, n, level) == pytest.approx(integral, abs=1e-4)


def test_smallest_detectable_difference_has_80_percent_power() -> None:
    smallest = smallest_detectable(0.3, 5, 0.0125)
    assert power(smallest, 0.3, 5, 0.0125) == pytest.approx(0.8, abs=1e-6)
    found, stated = detectable_is_found(4_000, seeds=5, tests=4)
    assert stated == pytest.approx(0.8, abs=1e-6)
    assert abs(found - stated) < 3 * math.sqrt(0.8 * 0.2 / 4_000)


def test_seeds_needed_are_the_fewest() -> None:
    # G*Power: d = 0.5, two-sided 5%, 80% power takes 34.
    assert seeds_needed(0.5, 1.0, 0.05) == 34
    assert seeds_needed(-0.5, 1.0, 0.05) == 34
    assert seeds_needed(1e-3, 1.0, 0.05) is None
    assert seeds_needed(1e6, 1.0, 0.05) == 2


def test_inconclusive_outcome_says_what_it_could_have_seen_at_its_level() -> None:
    noisy = PairedTest((0.3, -0.1, 0.2, 0.05), "higher", 0.0)
    clear = PairedTest((1.0, 1.01, 0.99, 1.0), "higher", 0.0)
    outcome, decided = judge_tests([noisy, clear], 0.95)
    # One of two rejects, so the other one had to reach all of alpha.
    spread = float(np.std(noisy.differences, ddof=1))
    assert decided.verdict == "BEATS"
    assert decided.detectable is None
    assert outcome.detectable == pytest.approx(smallest_detectable(spread, 4, 0.05))
    mean = float(np.mean(noisy.differences))
    assert outcome.seeds_needed == seeds_needed(mean, spread, 0.05)
