"""The robust fit of one arm's law: Huber's loss, one shift per seed, and what is left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

THRESHOLD = 2.0
"""Huber's threshold in units of the scale: 99% efficient for normal noise, and one bad run moves
the fit little."""

_PASSES = 12


class Model(Protocol):
    """A law at the runs of one arm: fits many data sets `[..., n]` at once to parameters `[...,
    size]`."""

    @property
    def size(self) -> int:
        """Number of parameters."""

    def solve(self, y: Array, weights: Array | None = None, near: Array | None = None) -> Array:
        """Weighted least squares: `[..., n]` values to `[..., size]` parameters."""

    def values(self, theta: Array) -> Array:
        """`[..., n]` values at the runs."""

    def at(self, theta: Array, parameters: Array, tokens: Array) -> Array:
        """`[..., m]` values at other sizes and effective tokens."""

    def named(self, theta: Array) -> Mapping[str, Array]:
        """The parameters under their published symbols."""


@dataclass(frozen=True)
class RobustFit:
    """A law fitted to data sets of one design.

    Attributes:
        theta: `[..., size]`: the model's parameters.
        shifts: `[..., seeds]`: how far each seed lies from the law, over its runs; they sum to
            zero.
        residuals: `[..., n]`: winsorised residuals after the shift, scaled so that their sum of
            squares over `degrees_of_freedom` is the variance of the noise as the fit sees it (Huber
            1981, section 7.6, with his correction for few runs).
    """

    theta: Array
    shifts: Array
    residuals: Array


def huber(model: Model, y: Array, seed: NDArray[np.intp]) -> RobustFit:
    """Fit y = law + shift of the seed + noise with Huber's loss, its scale estimated from the data.

    Hoffmann et al. (2022, arXiv 2203.15556, section 3.3) fit with Huber's loss at a fixed threshold
    of 1e-3 in log
    loss. Here the threshold follows the noise: the start is the least absolute deviations fit,
    which one bad run cannot pull; the median of its residuals, over those that it does not force to
    zero, gives the scale; Huber's estimate follows by reweighting.

    Args:
        model: the law at the runs.
        y: `[..., n]`: values, lower is better.
        seed: `[n]`: index of the seed of each run.
    """
    member = (seed[:, None] == np.arange(seed.max() + 1)).astype(np.float64)
    tiny = 1e-9 * (1 + np.abs(y).max(-1, keepdims=True))
    theta = model.solve(y)
    shifts = _shifts(y - model.values(theta), np.ones_like(y), member)
    for _ in range(_PASSES):
        left = np.abs(_left(model, theta, shifts, member, y))
        weights = 1 / np.maximum(left, np.maximum(tiny, 0.05 * left.mean(-1, keepdims=True)))
        theta, shifts = _reweighted(model, y, weights, member, theta, shifts)
    left = np.abs(_left(model, theta, shifts, member, y))
    largest = np.sort(left, -1)[..., -degrees_of_freedom(model, seed) :]
    clip = THRESHOLD * np.maximum(np.median(largest, -1, keepdims=True) / 0.6745, tiny)
    for _ in range(_PASSES):
        left = np.abs(_left(model, theta, shifts, member, y))
        theta, shifts = _reweighted(model, y, clip / np.maximum(left, clip), member, theta, shifts)
    left = _left(model, theta, shifts, member, y)
    kept = (np.abs(left) <= clip).mean(-1, keepdims=True)
    small = 1 + (model.size + seed.max()) / len(seed) * (1 - kept) / kept
    return RobustFit(theta, shifts, np.clip(left, -clip, clip) / kept * small)


def degrees_of_freedom(model: Model, seed: NDArray[np.intp]) -> int:
    """Runs less the law's parameters less one shift for each seed after the first."""
    return len(seed) - model.size - int(seed.max())


def _left(model: Model, theta: Array, shifts: Array, member: Array, y: Array) -> Array:
    return np.asarray(y - model.values(theta) - shifts @ member.T)


def _reweighted(
    model: Model, y: Array, weights: Array, member: Array, theta: Array, shifts: Array
) -> tuple[Array, Array]:
    theta = model.solve(y - shifts @ member.T, weights, theta)
    return theta, _shifts(y - model.values(theta), weights, member)


def _shifts(residuals: Array, weights: Array, member: Array) -> Array:
    means = (weights * residuals) @ member / (weights @ member)
    return np.asarray(means - means.mean(-1, keepdims=True))
