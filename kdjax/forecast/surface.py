"""The full law of one arm, y = E + (A / N**a + B / D**b)**g.

Fitted by batched Levenberg-Marquardt steps within bounds, in log amplitudes at the runs' own mean
size and tokens, where they are well determined. Values are losses throughout; a score is fitted as
its negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS = 60
# A step that lowers the sum of squares by less than this share of it is the last.
_TOLERANCE = 1e-7
# Bounds of log A, a, log B, b and g.
_LOWEST = np.array([-30.0, 0.02, -30.0, 0.02, 0.1])
_HIGHEST = np.array([10.0, 2.5, 10.0, 2.5, 3.0])


@dataclass(frozen=True)
class Surface:
    """The full law at the sizes and tokens of one arm's runs (a `robust.Law`).

    Attributes:
        parameters: `[n]`: parameters N of the runs.
        tokens: `[n]`: effective tokens D' of the runs.
        floor: the best value there can be: E is not below it.
        outer: whether the outer exponent g is fitted; otherwise g is 1.
    """

    parameters: Array
    tokens: Array
    floor: float
    outer: bool

    @property
    def size(self) -> int:
        """Return the number of parameters fitted."""
        return 5 + self.outer

    def at(self, theta: Array, parameters: Array, tokens: Array) -> Array:
        """Evaluate fitted laws at pairs of a model's size and its tokens.

        Args:
            theta: `[..., size]`: fitted parameters.
            parameters: `[m]`: parameters of the models.
            tokens: `[m]`: effective tokens.

        Returns:
            `[..., m]` values.
        """
        return _law(theta, self._size(parameters), self._data(tokens))

    def values(self, theta: Array) -> Array:
        """Compute `[..., n]` values at the runs."""
        return self.at(theta, self.parameters, self.tokens)

    def solve(self, y: Array, weights: Array | None = None, near: Array | None = None) -> Array:
        """Fit the law to values by a descent.

        Args:
            y: `[..., n]`: values at the runs.
            weights: `[..., n]`: weights of the runs; None: all alike.
            near: `[..., size]`: start of the descent; None: the best of several starts.

        Returns:
            `[..., size]` fitted parameters.
        """
        rows = y.reshape(-1, y.shape[-1])
        row_weights = np.ones_like(rows)
        if weights is not None:
            row_weights = np.broadcast_to(weights, y.shape).reshape(rows.shape)
        if near is not None:
            start = np.broadcast_to(near, (*y.shape[:-1], self.size)).reshape(-1, self.size)
            return self._descend(rows, row_weights, start)[0].reshape(*y.shape[:-1], self.size)
        fits = [self._descend(rows, row_weights, start) for start in self._starts(rows)]
        best = np.stack([loss for _, loss in fits]).argmin(0)
        chosen = np.stack([theta for theta, _ in fits])[best, np.arange(len(rows))]
        return np.asarray(chosen.reshape(*y.shape[:-1], self.size))

    def named(self, theta: Array) -> Mapping[str, Array]:
        """Return E, A, a, B, b (and g), with A and B for N and D counted in ones."""
        symbols = ("E", "A", "a", "B", "b", "g")
        parameters = dict(zip(symbols, np.moveaxis(theta, -1, 0), strict=False))
        # A and B of the wildest draws are beyond floats, and stand as infinity.
        with np.errstate(over="ignore"):
            log_size = np.log(self.parameters).mean()
            log_tokens = np.log(self.tokens).mean()
            parameters["A"] = np.exp(parameters["A"] + parameters["a"] * log_size)
            parameters["B"] = np.exp(parameters["B"] + parameters["b"] * log_tokens)
        return parameters

    def _size(self, parameters: Array) -> Array:
        """Return log N less its mean over the runs."""
        return np.asarray(np.log(parameters) - np.log(self.parameters).mean())

    def _data(self, tokens: Array) -> Array:
        """Return log D less its mean over the runs."""
        return np.asarray(np.log(tokens) - np.log(self.tokens).mean())

    def _starts(self, y: Array) -> list[Array]:
        """Make rough laws `[rows, size]` for `[rows, n]` values, over a grid of assumptions."""
        middle = y.mean(-1)
        best = y.min(-1)
        starts = []
        # How near the runs are to the floor, the share of the loss that size accounts for, both
        # inner exponents, and the outer one.
        outer_exponents = (1.0, 0.5) if self.outer else (1.0,)
        grid = itertools.product((0.3, 0.9), (0.2, 0.8), (0.15, 0.4, 1.0), outer_exponents)
        for asymptote, size_share, exponent, outer in grid:
            low = np.maximum(self.floor, best - (middle - best) / asymptote * 0.7)
            inner = np.maximum(middle - low, 1e-12) ** (1 / outer)
            log_a = np.log(size_share * inner)
            log_b = np.log((1 - size_share) * inner)
            columns = np.broadcast_arrays(low, log_a, exponent, log_b, exponent, outer)
            starts.append(np.stack(columns[: self.size], -1))
        return starts

    def _descend(self, y: Array, weights: Array, start: Array) -> tuple[Array, Array]:
        """Descend from `[rows, size]` laws; return the laws reached and their sums of squares."""
        lowest = np.concatenate([[self.floor], _LOWEST])[: self.size]
        highest = np.concatenate([[np.inf], _HIGHEST])[: self.size]
        zn = self._size(self.parameters)
        zd = self._data(self.tokens)
        root = np.sqrt(weights)
        theta = np.clip(start, lowest, highest)
        residual = root * (y - _law(theta, zn, zd))
        loss = (residual**2).sum(-1)
        damping = np.full(len(y), 1e-2)
        for _ in range(_STEPS):
            # Parameters that a bound holds and the gradient presses against it take no part.
            jacobian = root[..., None] * _gradient(theta, zn, zd)
            pull = np.einsum("rnp,rn->rp", jacobian, residual)
            stuck = ((theta <= lowest) & (pull < 0)) | ((theta >= highest) & (pull > 0))
            jacobian = np.where(stuck[:, None, :], 0.0, jacobian)

            # The damped normal equations.
            normal = np.einsum("rnp,rnq->rpq", jacobian, jacobian)
            scale = np.einsum("rpp->rp", normal) + 1e-12
            normal += (
                np.eye(self.size) * (damping[:, None] * scale)[:, None, :]
                + np.eye(self.size) * 1e-12
            )
            step = np.linalg.solve(normal, np.where(stuck, 0.0, pull)[..., None])[..., 0]

            # A step that lowers the sum of squares is taken, and the next one damped less.
            new_theta = np.clip(theta + step, lowest, highest)
            new_residual = root * (y - _law(new_theta, zn, zd))
            new_loss = (new_residual**2).sum(-1)
            better = new_loss < loss
            done = np.where(better, loss - new_loss < _TOLERANCE * loss, damping > 1e6)
            theta = np.where(better[:, None], new_theta, theta)
            residual = np.where(better[:, None], new_residual, residual)
            loss = np.where(better, new_loss, loss)
            damping = np.clip(np.where(better, damping / 4, damping * 4), 1e-10, 1e10)
            if done.all():
                break
        return theta, loss


def _law(theta: Array, zn: Array, zd: Array) -> Array:
    """Compute `[rows, n]` values of laws `[rows, size]` at centred logarithms of N and D."""
    e, log_a, a, log_b, b, *g = np.moveaxis(theta[..., None], -2, 0)
    value = np.exp(log_a - a * zn) + np.exp(log_b - b * zd)
    for outer in g:
        value = value**outer
    return np.asarray(e + value)


def _gradient(theta: Array, zn: Array, zd: Array) -> Array:
    """Compute the derivatives of `_law` by its parameters, `[rows, n, size]`."""
    _, log_a, a, log_b, b, *_ = np.moveaxis(theta[..., None], -2, 0)
    size = np.exp(log_a - a * zn)
    data = np.exp(log_b - b * zd)
    if theta.shape[-1] == 5:
        return np.stack([np.ones_like(size), size, -zn * size, data, -zd * data], -1)
    g = theta[..., 5, None]
    inner = size + data
    chain = g * inner ** (g - 1)
    value = inner**g
    columns = [
        np.ones_like(size),
        chain * size,
        -zn * chain * size,
        chain * data,
        -zd * chain * data,
    ]
    return np.stack([*columns, value * np.log(inner)], -1)
