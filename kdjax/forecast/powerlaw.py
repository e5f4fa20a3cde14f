"""The saturating power law of one arm, y = E + K * D**-k, fitted by variable projection.

With z = log(D / D0) the curve is written level - slope * (1 - exp(-k z)) / k. Level is the value at
D0, slope the improvement per e-fold of tokens there, so both are well determined by runs around D0,
and k -> 0 is the straight line in log D rather than a singularity. E = level - slope / k and K =
slope / k * D0**k. Values are losses throughout: lower is better; a score is fitted as its negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENTS: Array = np.geomspace(0.02, 2.5, 72)
"""Candidate k: below them 1.5 decades of tokens show a straight line in log D, above them a
step."""

# Data sets fitted in one block: a grid of so many stays in a core's cache.
_ROWS = 2048


@dataclass(frozen=True)
class PowerLaw:
    """The power law at the tokens of one arm's runs, all of one size (a `robust.Law`).

    Attributes:
        tokens: `[n]`: effective tokens D' of the runs.
        floor: the best value there can be: E is not below it.
    """

    tokens: Array
    floor: float

    size = 3

    def at(self, theta: Array, parameters: Array, tokens: Array) -> Array:
        """Evaluate fitted laws at numbers of tokens; the model's size plays no part here.

        Args:
            theta: `[..., 3]`: fitted parameters.
            parameters: ignored: a law of tokens alone.
            tokens: `[m]`: effective tokens.

        Returns:
            `[..., m]` values.
        """
        return evaluate(theta[..., None, :], self._data(tokens))

    def values(self, theta: Array) -> Array:
        """Compute `[..., n]` values at the runs."""
        return evaluate(theta[..., None, :], self._data(self.tokens))

    def solve(self, y: Array, weights: Array | None = None, near: Array | None = None) -> Array:
        """Fit the law to values by weighted least squares; the search is global.

        Args:
            y: `[..., n]`: values at the runs.
            weights: `[..., n]`: weights of the runs; None: all alike.
            near: ignored: a global search needs no start.

        Returns:
            `[..., 3]` fitted parameters.
        """
        return least_squares(self._data(self.tokens), y, self.floor, weights)

    def named(self, theta: Array) -> Mapping[str, Array]:
        """Return E, K and k, with K for D counted in ones."""
        level, slope, k = np.moveaxis(theta, -1, 0)
        return {
            "E": level - slope / k,
            "K": slope / k * np.exp(k * np.log(self.tokens).mean()),
            "k": k,
        }

    def _data(self, tokens: Array) -> Array:
        """Return z = log(D / D0)."""
        return np.asarray(np.log(tokens) - np.log(self.tokens).mean())


def evaluate(curves: Array, z: Array | float) -> Array:
    """Compute values of curves.

    Args:
        curves: `[..., 3]`: level, slope, k.
        z: `log(D / D0)`, broadcast against `curves[..., 0]`.
    """
    level, slope, k = np.moveaxis(curves, -1, 0)
    return np.asarray(level + slope * np.expm1(-k * z) / k)


def least_squares(z: Array, y: Array, floor: float, weights: Array | None = None) -> Array:
    """Fit every data set by weighted least squares under slope >= 0 and E >= floor.

    For each k of a grid, level and slope have a closed form (variable projection, Golub and Pereyra
    1973). The best curve has either E above the floor, and is then the best without that bound, or
    E at the floor: the minimum over k is found for both, refined twice by a parabola through
    neighbours, and the better one taken.

    Args:
        z: `[n]`: log(D / D0) of the runs.
        y: `[..., n]`: values, lower is better.
        floor: the best value there can be: E is not below it.
        weights: `[..., n]`: weights of at least 0; None for equal ones.

    Returns:
        `[..., 3]`: level, slope, k.
    """
    rows = y.reshape(-1, y.shape[-1]) - floor
    blocks = []
    for start in range(0, len(rows), _ROWS):
        block = slice(start, start + _ROWS)
        # Equal weights are one row that all data sets share: the grid's sums are then small.
        block_weights = np.ones_like(rows[:1])
        if weights is not None:
            block_weights = weights.reshape(rows.shape)[block]
        blocks.append(_block(z, rows[block], block_weights))
    curves = np.concatenate(blocks) + np.array([floor, 0.0, 0.0])
    return np.asarray(curves.reshape(*y.shape[:-1], 3))


@dataclass(frozen=True)
class _Sums:
    """Weighted sums of data sets y and of the rise x_k(z) = (1 - exp(-k z)) / k, all broadcast."""

    total: Array
    mean: Array
    square: Array
    rise: Array
    rise_square: Array
    cross: Array
    k: Array

    def free(self) -> tuple[Array, Array, Array]:
        """Compute level, slope >= 0 and sum of squares of the best curve at each k."""
        spread = self.rise_square - self.total * self.rise**2
        slope = np.maximum((self.total * self.mean * self.rise - self.cross) / spread, 0.0)
        loss = self.square - self.total * self.mean**2 - slope**2 * spread
        return self.mean + slope * self.rise, slope, loss

    def bound(self) -> tuple[Array, Array, Array]:
        """Compute level, slope and sum of squares of the best curve with E = 0 at each k.

        The curve is amplitude * exp(-k z), and exp(-k z) = 1 - k * rise.
        """
        decay_square = self.total * (1 - 2 * self.k * self.rise) + self.k**2 * self.rise_square
        amplitude = np.maximum((self.total * self.mean - self.k * self.cross) / decay_square, 0.0)
        return amplitude, self.k * amplitude, self.square - amplitude**2 * decay_square


def _block(z: Array, y: Array, w: Array) -> Array:
    """Fit `[rows, n]` values with E >= 0; return `[rows, 3]` curves.

    Args:
        z: `[n]`: log(D / D0) of the runs.
        y: `[rows, n]`: values above the floor.
        w: `[rows, n]` or `[1, n]`: weights.
    """
    wy = w * y
    total = w.sum(-1, keepdims=True)
    fixed = (total, wy.sum(-1, keepdims=True) / total, (wy * y).sum(-1, keepdims=True))

    def at(k: Array) -> _Sums:
        rise = -np.expm1(-k[..., None] * z) / k[..., None]
        weighted = w[:, None] * rise
        cross = (wy[:, None] * rise).sum(-1)
        return _Sums(*fixed, weighted.sum(-1) / total, (weighted * rise).sum(-1), cross, k)

    # All k of the grid at once, as matrix products: the same k for every data set.
    basis = -np.expm1(-np.outer(EXPONENTS, z)) / EXPONENTS[:, None]
    grid = _Sums(*fixed, w @ basis.T / total, w @ (basis**2).T, wy @ basis.T, EXPONENTS)
    level, slope, free_loss = grid.free()
    inside = level * EXPONENTS >= slope
    bound_loss = grid.bound()[2]
    row = np.arange(len(y))
    ratio = float(np.log(EXPONENTS[1] / EXPONENTS[0]))
    curves = []
    losses = []
    for solve, loss, best in (
        (_Sums.free, free_loss, np.where(inside, free_loss, np.inf).argmin(-1)),
        (_Sums.bound, bound_loss, bound_loss.argmin(-1)),
    ):
        # A parabola through the best k of the grid and its neighbours, then one six times as fine.
        middle = np.clip(best, 1, len(EXPONENTS) - 2)
        near = np.stack([loss[row, middle + shift] for shift in (-1, 0, 1)], -1)
        k = EXPONENTS[middle] * np.exp(ratio * _vertex(near))
        near = solve(at(k[:, None] * np.exp(ratio / 6 * np.arange(-1.0, 2.0))))[2]
        k = np.clip(k * np.exp(ratio / 6 * _vertex(near)), EXPONENTS[0], EXPONENTS[-1])
        level, slope, refined_loss = solve(at(k[:, None]))
        # A free curve may still have E below 0 by now; it is then out of the running.
        valid = level * k[:, None] >= slope * (1 - 1e-12)
        curves.append(np.concatenate([level, slope, k[:, None]], -1))
        losses.append(np.where(valid, refined_loss, np.inf)[:, 0])
    return np.where((losses[0] <= losses[1])[:, None], *curves)


def _vertex(values: Array) -> Array:
    """Find the lowest point in [-1, 1] of the parabola through `[rows, 3]` values at -1, 0, 1."""
    left, centre, right = values.T
    bend = left - 2 * centre + right
    # Without a bend upwards the lower end is the lowest.
    towards = np.where(left < right, -1.0, np.where(right < left, 1.0, 0.0))
    inner = 0.5 * (left - right) / np.where(bend > 0, bend, 1.0)
    return np.asarray(np.clip(np.where(bend > 0, inner, towards), -1.0, 1.0))
