"""The full law of one arm, y = E + (A / N**a + B / D**b)**g, by batched Levenberg-Marquardt steps
within bounds.

Fitted in log amplitudes at the runs' own mean size and tokens, where they are well determined.
Values are losses throughout; a score is fitted as its negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS = 60
_SETTLED = 1e-7  # share of the sum of squares below which a step is the last
_LOWEST = np.array([-30.0, 0.02, -30.0, 0.02, 0.1])
_HIGHEST = np.array([10.0, 2.5, 10.0, 2.5, 3.0])


@dataclass(frozen=True)
class Surface:
    """The full law at the sizes and tokens of one arm's runs (a `robust.Model`).

    Attributes:
        parameters, tokens: `[n]`: N and effective tokens D' of the runs.
        floor: the best value there can be: E is not below it.
        outer: whether g is fitted; otherwise it is 1.
    """

    parameters: Array
    tokens: Array
    floor: float
    outer: bool

    @property
    def size(self) -> int:
        """Number of parameters fitted."""
        return 6 if self.outer else 5

    def at(self, theta: Array, parameters: Array, tokens: Array) -> Array:
        """Values `[..., m]` of laws `[..., size]` at `[m]` sizes and effective tokens."""
        return _law(theta, self._size(parameters), self._data(tokens))

    def values(self, theta: Array) -> Array:
        """Values `[..., n]` at the runs."""
        return self.at(theta, self.parameters, self.tokens)

    def solve(self, y: Array, weights: Array | None = None, near: Array | None = None) -> Array:
        """Weighted least squares of `[..., n]` values: from `near` `[..., size]`, or the best of
        several starts."""
        rows = y.reshape(-1, y.shape[-1])
        mass = (
            np.ones_like(rows)
            if weights is None
            else np.broadcast_to(weights, y.shape).reshape(rows.shape)
        )
        if near is not None:
            start = np.broadcast_to(near, (*y.shape[:-1], self.size)).reshape(-1, self.size)
            return self._descend(rows, mass, start)[0].reshape(*y.shape[:-1], self.size)
        found = [self._descend(rows, mass, start) for start in self._starts(rows)]
        best = np.stack([loss for _, loss in found]).argmin(0)
        chosen = np.stack([theta for theta, _ in found])[best, np.arange(len(rows))]
        return np.asarray(chosen.reshape(*y.shape[:-1], self.size))

    def named(self, theta: Array) -> Mapping[str, Array]:
        """The published symbols E, A, a, B, b (and g), with A and B for N and D counted in ones."""
        names = ("E", "A", "a", "B", "b", "g")
        out = dict(zip(names, np.moveaxis(theta, -1, 0), strict=False))
        # E and B of the wildest draws are beyond floats, and stand as infinity.
        with np.errstate(over="ignore"):
            out["A"] = np.exp(out["A"] + out["a"] * np.log(self.parameters).mean())
            out["B"] = np.exp(out["B"] + out["b"] * np.log(self.tokens).mean())
        return out

    def _size(self, parameters: Array) -> Array:
        return np.asarray(np.log(parameters) - np.log(self.parameters).mean())

    def _data(self, tokens: Array) -> Array:
        return np.asarray(np.log(tokens) - np.log(self.tokens).mean())

    def _starts(self, y: Array) -> list[Array]:
        middle = y.mean(-1)
        best = y.min(-1)
        starts = []
        for asymptote in (0.3, 0.9):
            for share in (0.2, 0.8):
                for exponent in (0.15, 0.4, 1.0):
                    for outer in (1.0, 0.5) if self.outer else (1.0,):
                        low = np.maximum(self.floor, best - (middle - best) / asymptote * 0.7)
                        inner = np.maximum(middle - low, 1e-12) ** (1 / outer)
                        columns = [
                            low,
                            np.log(share * inner),
                            exponent,
                            np.log((1 - share) * inner),
                            exponent,
                            outer,
                        ]
                        starts.append(
                            np.stack(
                                [np.broadcast_to(c, low.shape) for c in columns[: self.size]], -1
                            )
                        )
        return starts

    def _descend(self, y: Array, weights: Array, start: Array) -> tuple[Array, Array]:
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
            slope = root[..., None] * _gradient(theta, zn, zd)
            pull = np.einsum("rnp,rn->rp", slope, residual)
            stuck = ((theta <= lowest) & (pull < 0)) | ((theta >= highest) & (pull > 0))
            slope = np.where(stuck[:, None, :], 0.0, slope)
            normal = np.einsum("rnp,rnq->rpq", slope, slope)
            scale = np.einsum("rpp->rp", normal) + 1e-12
            normal += (
                np.eye(self.size) * (damping[:, None] * scale)[:, None, :]
                + np.eye(self.size) * 1e-12
            )
            step = np.linalg.solve(normal, np.where(stuck, 0.0, pull)[..., None])[..., 0]
            tried = np.clip(theta + step, lowest, highest)
            left = root * (y - _law(tried, zn, zd))
            tried_loss = (left**2).sum(-1)
            better = tried_loss < loss
            settled = np.where(better, loss - tried_loss < _SETTLED * loss, damping > 1e6)
            theta = np.where(better[:, None], tried, theta)
            residual = np.where(better[:, None], left, residual)
            loss = np.where(better, tried_loss, loss)
            damping = np.clip(np.where(better, damping / 4, damping * 4), 1e-10, 1e10)
            if settled.all():
                break
        return theta, loss


def _law(theta: Array, zn: Array, zd: Array) -> Array:
    e, log_a, a, log_b, b = (theta[..., i, None] for i in range(5))
    inner = np.exp(log_a - a * zn) + np.exp(log_b - b * zd)
    return np.asarray(e + (inner ** theta[..., 5, None] if theta.shape[-1] == 6 else inner))


def _gradient(theta: Array, zn: Array, zd: Array) -> Array:
    _, log_a, a, log_b, b = (theta[..., i, None] for i in range(5))
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
