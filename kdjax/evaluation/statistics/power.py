"""What a paired t-test over so many seeds can find: power, by the noncentral t distribution."""

from __future__ import annotations

import functools
import math

from scipy import optimize, stats

POWER = 0.8
"""Power that a study is asked about."""
MOST_SEEDS = 1000
"""More seeds than that are not counted."""


def power(effect: float, spread: float, n: int, level: float) -> float:
    """Compute the power of a two-sided paired t-test to find an effect in its own direction.

    With df = n - 1 and t the quantile 1 - level / 2 of Student's t, it is the chance that a
    noncentral t with noncentrality effect / (spread / sqrt(n)) exceeds t (Cohen 1988, "Statistical
    power analysis for the behavioral sciences", chapter 2).

    Args:
        effect: true mean of the paired differences.
        spread: true standard deviation of the paired differences, above 0.
        n: number of seeds, at least 2.
        level: level of the test, between 0 and 1.
    """
    return _power(abs(effect) / spread * math.sqrt(n), n, level)


def smallest_detectable(spread: float, n: int, level: float, target: float = POWER) -> float:
    """Compute the smallest effect that a two-sided paired t-test finds with a given power.

    Args:
        spread: standard deviation of the paired differences.
        n: number of seeds, at least 2.
        level: level of the test, between 0 and 1.
        target: the power, between `level` and 1.
    """
    return _noncentrality(n, level, target) * spread / math.sqrt(n)


def seeds_needed(effect: float, spread: float, level: float, target: float = POWER) -> int | None:
    """Compute the seeds that a two-sided paired t-test takes to find an effect with a given power.

    Args:
        effect: true mean of the paired differences.
        spread: their true standard deviation, above 0.
        level: level of the test, between 0 and 1.
        target: the power, between `level` and 1.

    Returns:
        The smallest number, at least 2; None where more than `MOST_SEEDS` would be needed.
    """
    size = abs(effect) / spread
    if size * math.sqrt(MOST_SEEDS) < _noncentrality(MOST_SEEDS, level, target):
        return None
    # Power rises with the number of seeds: halve the range until one is left.
    low = 2
    high = MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        if _power(size * math.sqrt(middle), middle, level) >= target:
            high = middle
        else:
            low = middle + 1
    return high


def _power(noncentrality: float, n: int, level: float) -> float:
    """Compute the upper tail of a noncentral t beyond the test's quantile."""
    threshold = stats.t.isf(level / 2, n - 1)
    return float(stats.nct.sf(threshold, n - 1, noncentrality))


@functools.lru_cache(maxsize=1024)
def _noncentrality(n: int, level: float, target: float) -> float:
    """Compute the noncentrality at which the test has its power."""
    # A normal with a known spread would need this; estimating the spread can only ask for more.
    low = stats.norm.isf(level / 2) - stats.norm.isf(target)
    high = 2 * max(low, 1.0)
    while _power(high, n, level) < target:
        high *= 2
    root = optimize.brentq(lambda value: _power(value, n, level) - target, 0.0, high, rtol=1e-9)
    return float(root)
