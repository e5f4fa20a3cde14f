"""The mean of paired differences over seeds: Student's t interval, p-value, and a smallest spread.

All of it works over the last axis, so that a simulation of thousands of studies is one call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kdjax.errors import InputError
from kdjax.evaluation.statistics.verdict_rule import check_settings

Array = NDArray[np.float64]

FLOAT32_STEP = float(np.finfo(np.float32).eps)
"""Relative step of float32, in which models are measured."""


@dataclass(frozen=True)
class Estimate:
    """The mean of paired differences, and how far it may be off by the seeds alone.

    Attributes:
        mean: `[...]`: mean over seeds.
        spread: `[...]`: sample standard deviation over seeds, no smaller than the values resolve.
        n: number of seeds.
    """

    mean: Array
    spread: Array
    n: int

    @property
    def standard_error(self) -> Array:
        """Return the standard error of the mean, `[...]`."""
        return np.asarray(self.spread / np.sqrt(self.n))

    def interval(self, confidence: float) -> tuple[Array, Array]:
        """Compute Student's t interval of the mean.

        Args:
            confidence: nominal coverage, between 0 and 1.

        Returns:
            low, high: `[...]` each.
        """
        half_width = stats.t.ppf((1 + confidence) / 2, self.n - 1) * self.standard_error
        return self.mean - half_width, self.mean + half_width

    def p_value(self) -> Array:
        """Compute the two-sided p-value of the paired t-test: is the mean 0?

        Returns:
            `[...]`: the probability, if it were, of a mean at least this far from 0 in standard
            errors. Without any spread it is 1 where the mean is 0, and else 0.
        """
        # 0 / 0 of equal differences is no evidence; anything else over 0 is infinitely far.
        error = self.standard_error
        distance = np.abs(self.mean) / np.where(error == 0, 1.0, error)
        distance = np.where(error == 0, np.where(self.mean == 0, 0.0, np.inf), distance)
        return np.asarray(2 * stats.t.sf(distance, self.n - 1))

    def is_within(self, margin: float, level: float) -> NDArray[np.bool_]:
        """Return whether two one-sided tests show that the mean lies within -margin to +margin.

        Each is a t-test at `level`; both reject where the interval of confidence 1 - 2 * level lies
        within the margin (Schuirmann 1987, doi 10.1007/BF01068419).

        Args:
            margin: the largest difference that does not matter.
            level: chance of each test to err.
        """
        low, high = self.interval(1 - 2 * level)
        return np.asarray((-margin <= low) & (high <= margin))


def estimate(differences: ArrayLike, floor: ArrayLike = 0.0) -> Estimate:
    """Estimate the mean of paired differences, over the last axis.

    Args:
        differences: `[..., n]`, n at least 2: one paired difference per seed.
        floor: `[...]`: the smallest spread that is believed; see `smallest_spread`.

    Raises:
        InputError: fewer than two differences.
    """
    values = np.asarray(differences, np.float64)
    n = values.shape[-1]
    if n < 2:
        raise InputError(f"interval: found {n} paired difference(s), expected at least 2")
    # Equal values must give 0 exactly; their computed mean can differ from them in the last bit.
    spread = np.where(np.ptp(values, axis=-1) == 0, 0.0, values.std(-1, ddof=1))
    return Estimate(values.mean(-1), np.maximum(spread, floor), n)


def smallest_spread(values: Iterable[float], resolution: float = 0.0) -> float:
    """Return the smallest spread of paired differences that is believed.

    Seeds that all show the same difference, to what a score can resolve, say that its spread is
    small and not that there is none. A score on rows moves in steps of a row, a loss in steps of
    float32.

    Args:
        values: the values of both arms.
        resolution: smallest step of the endpoint: 1 / rows for scores on rows, 0 for losses.
    """
    return max(resolution, FLOAT32_STEP * max(map(abs, values), default=0.0))


def interval(
    differences: ArrayLike, confidence: float, floor: ArrayLike = 0.0
) -> tuple[Array, Array, Array]:
    """Compute the mean and its Student-t confidence interval, over the last axis.

    mean -+ t * s / sqrt(n), with s the sample standard deviation (n - 1 in its denominator), or
    `floor` where that is more, and t the quantile (1 + confidence) / 2 of Student's t with n - 1
    degrees of freedom.

    Args:
        differences: `[..., n]`, n at least 2: one paired difference per seed.
        confidence: nominal coverage, between 0 and 1.
        floor: `[...]`: the smallest spread that is believed.

    Returns:
        mean, low, high: `[...]` each.

    Raises:
        InputError: fewer than two differences, or a confidence outside (0, 1).
    """
    check_settings(confidence, 0.0)
    over_seeds = estimate(differences, floor)
    low, high = over_seeds.interval(confidence)
    return over_seeds.mean, low, high
