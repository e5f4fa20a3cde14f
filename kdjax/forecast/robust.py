"""The robust fit of one arm's law: Huber's loss, one shift per seed, and what is left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLD = 2.0
"""Huber's threshold in units of the scale: 99% efficient for normal noise, and robust to one bad
run."""

# Reweightings of each of the two fits.
_PASSES = 12


class Law(Protocol):
    """A law at the runs of one arm, fitted to many data sets `[..., n]` at once."""

    @property
    def size(self) -> int:
        """Return the number of parameters."""

    def solve(self, y: Array, weights: Array | None = None, near: Array | None = None) -> Array:
        """Fit `[..., size]` parameters to `[..., n]` values by weighted least squares.

        Args:
            y: values, `[..., n]`.
            weights: weight of each, `[..., n]`.
            near: parameters near the solution, `[..., size]`; None: none are known.
        """

    def values(self, theta: Array) -> Array:
        """Compute `[..., n]` values at the runs."""

    def at(self, theta: Array, parameters: Array, tokens: Array) -> Array:
        """Compute `[..., m]` values at other sizes and effective tokens.

        Args:
            theta: parameters of the law, `[..., size]`.
            parameters: model sizes, `[m]`.
            tokens: effective tokens, `[m]`.
        """

    def named(self, theta: Array) -> Mapping[str, Array]:
        """Return the parameters under their published symbols."""


@dataclass(frozen=True)
class RobustFit:
    """A law fitted to data sets of one design.

    Attributes:
        theta: `[..., size]`: parameters of the law.
        shifts: `[..., seeds]`: how far each seed's runs lie from the law; the sum is zero.
        residuals: `[..., n]`: winsorised residuals after the shift, scaled so that their sum of
            squares over `degrees_of_freedom` is the variance of the noise as the fit sees it (Huber
            1981, section 7.6, with his correction for few runs).
    """

    theta: Array
    shifts: Array
    residuals: Array


def huber(law: Law, y: Array, seed: NDArray[np.intp]) -> RobustFit:
    """Fit y = law + shift of the seed + noise with Huber's loss, its scale estimated from the data.

    Hoffmann et al. (2022, arXiv 2203.15556, section 3.3) fit with Huber's loss at a fixed threshold
    of 1e-3 in log loss. Here the threshold follows the noise: the start is the least absolute
    deviations fit, which one bad run cannot pull; the median of its residuals, over those that it
    does not force to zero, gives the scale; Huber's estimate follows by reweighting.

    Args:
        law: the law at the runs.
        y: `[..., n]`: values, lower is better.
        seed: `[n]`: index of the seed of each run.
    """
    # `[n, seeds]`: which run is of which seed.
    member = (seed[:, None] == np.arange(seed.max() + 1)).astype(np.float64)
    tiny = 1e-9 * (1 + np.abs(y).max(-1, keepdims=True))
    theta = law.solve(y)
    shifts = _shifts(y - law.values(theta), np.ones_like(y), member)

    # Least absolute deviations: weights that are the inverse of the residuals, bounded.
    for _ in range(_PASSES):
        size = np.abs(_residuals(law, theta, shifts, member, y))
        weights = 1 / np.maximum(size, np.maximum(tiny, 0.05 * size.mean(-1, keepdims=True)))
        theta, shifts = _reweighted(law, y, weights, member, theta, shifts)

    # The scale of the noise: of normal noise the median size is 0.6745 standard deviations.
    size = np.abs(_residuals(law, theta, shifts, member, y))
    largest = np.sort(size, -1)[..., -degrees_of_freedom(law, seed) :]
    clip = THRESHOLD * np.maximum(np.median(largest, -1, keepdims=True) / 0.6745, tiny)

    # Huber's estimate: residuals beyond the threshold weigh less.
    for _ in range(_PASSES):
        size = np.abs(_residuals(law, theta, shifts, member, y))
        theta, shifts = _reweighted(law, y, clip / np.maximum(size, clip), member, theta, shifts)
    residuals = _residuals(law, theta, shifts, member, y)
    unclipped = (np.abs(residuals) <= clip).mean(-1, keepdims=True)
    correction = 1 + (law.size + seed.max()) / len(seed) * (1 - unclipped) / unclipped
    return RobustFit(theta, shifts, np.clip(residuals, -clip, clip) / unclipped * correction)


def degrees_of_freedom(law: Law, seed: NDArray[np.intp]) -> int:
    """Count the degrees of freedom of a fit: runs less all that is fitted to them.

    Fitted are the law's parameters and a shift for each seed after the first.

    Args:
        law: law that is fitted.
        seed: `[n]`: index of each run's seed, from 0.
    """
    return len(seed) - law.size - int(seed.max())


def _residuals(law: Law, theta: Array, shifts: Array, member: Array, y: Array) -> Array:
    """Compute the residuals of the values without law and shifts, `[..., n]`."""
    return np.asarray(y - law.values(theta) - shifts @ member.T)


def _reweighted(
    law: Law, y: Array, weights: Array, member: Array, theta: Array, shifts: Array
) -> tuple[Array, Array]:
    """Refit the law with new weights, and the shifts to it."""
    theta = law.solve(y - shifts @ member.T, weights, theta)
    return theta, _shifts(y - law.values(theta), weights, member)


def _shifts(residuals: Array, weights: Array, member: Array) -> Array:
    """Compute the weighted mean residual of each seed, `[..., seeds]`, summing to zero."""
    means = (weights * residuals) @ member / (weights @ member)
    return np.asarray(means - means.mean(-1, keepdims=True))
