"""Learning the shape of the teacher's attention, by correlation. B batch, H heads, L length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig
from kdjax.errors import InputError, nearest
from kdjax.models.features import Features
from kdjax.objectives import counts
from kdjax.objectives.attention import masked_scores, scores_needs
from kdjax.objectives.base import Batch, FeatureNeeds, Params, TeacherTerm
from kdjax.objectives.reductions import log_softmax, mean, valid_pairs

_AXES = {"key": 3, "query": 2, "head": 1, "batch": 0}
_FLAT = 1e-24
"""Sum of squared deviations below which probabilities have no shape: their correlation with others
is 0."""
_EPS = 1e-8


@dataclass(frozen=True)
class Pearson(TeacherTerm):
    """Σ_axis (1 − mean Pearson correlation of the last layer's attention probabilities along the
    axis).

    After DIST, Huang et al. 2022, arXiv 2205.10536, with attention in place of class probabilities.
    Along `key` each valid row is compared, along `query` each valid column, along `head` each valid
    pair of positions. A row or column holds the positions of its own segment. A segment of a single
    position has no correlations and does not count.
    """

    name: ClassVar[str] = "pearson"

    axes: str = "key,query"
    """The axes, joined by commas: key, query, head."""

    def __post_init__(self) -> None:
        _read_axes(self.axes, ("key", "query", "head"))

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        if "head" in self.axes and student.heads < 2:
            raise InputError(
                f"axes is {self.axes!r} with {student.heads} head, expected at least 2 heads to "
                "correlate"
            )
        return scores_needs(student, teacher, ((student.layers, teacher.layers),))

    def count(self, batch: Batch) -> jax.Array | None:
        """What is compared: rows or columns, pairs of positions, or None where both are, each with
        its own mean."""
        names = _read_axes(self.axes, _AXES)
        where = _where(batch)
        if "head" not in names:
            return counts.number(jnp.any(where, axis=-1))
        return counts.number(where) if len(names) == 1 else None

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = _where(batch)
        own, target = (
            jnp.where(where, jnp.exp(log_softmax(features.scores[max(features.scores)], where)), 0)
            for features in (student, teacher)
        )
        losses = []
        for name in _read_axes(self.axes, _AXES):
            axis = _AXES[name]
            inside = jnp.broadcast_to(where, own.shape) if name == "head" else where
            count = jnp.sum(inside, axis=axis, keepdims=True, dtype=jnp.int32)
            a, b = (_deviations(p, axis, inside, count) for p in (own, target))
            correlation = jnp.sum(_unit(a, axis) * _unit(b, axis), axis=axis, keepdims=True)
            losses.append(mean(1 - correlation, count > 1))
        return sum(losses[1:], start=losses[0])


@dataclass(frozen=True)
class PearsonBui2024(TeacherTerm):
    """Σ_axis (1 − mean Pearson correlation of the last layer's attention probabilities along the
    axis), padding too.

    The published code of arXiv 2404.19319 (`pear_col`): along keys, queries, heads and the
    sequences of the batch, with 1e-8 added to the product of the lengths. Padded rows and columns
    count.
    """

    name: ClassVar[str] = "pearson"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return scores_needs(student, teacher, ((student.layers, teacher.layers),))

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        own, target = (
            jnp.exp(log_softmax(masked_scores(features.scores[max(features.scores)], batch)))
            for features in (student, teacher)
        )
        losses = []
        for axis in _AXES.values():
            a, b = (p - jnp.mean(p, axis=axis, keepdims=True) for p in (own, target))
            correlation = jnp.sum(a * b, axis=axis) / (_length(a, axis) * _length(b, axis) + _EPS)
            losses.append(1 - mean(correlation))
        return sum(losses[1:], start=losses[0])


def _where(batch: Batch) -> jax.Array:
    """Valid pairs of positions in segments of more than one, bool `[B, 1, L, L]`."""
    where = valid_pairs(batch)
    return where & (jnp.sum(where, axis=-1, keepdims=True, dtype=jnp.int32) > 1)


def _read_axes(axes: Any, known: Sequence[str] | dict[str, int]) -> list[str]:
    """The names in `key,query`.

    Raises:
        InputError: a name that is not known, or one that comes twice.
    """
    names = [name.strip() for name in axes.split(",")] if isinstance(axes, str) else []
    for name in names:
        if name not in known:
            raise InputError(f"axes: unknown axis {name!r}{nearest(name, known)}")
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"axes is {axes!r}, expected different ones of {', '.join(known)}, joined by commas"
        )
    return names


def _deviations(p: jax.Array, axis: int, where: jax.Array, count: jax.Array) -> jax.Array:
    """Differences from the mean of what is at `where`, 0 elsewhere; `p` is 0 there already."""
    return jnp.where(where, p - jnp.sum(p, axis=axis, keepdims=True) / jnp.maximum(count, 1), 0)


def _unit(x: jax.Array, axis: int) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=axis, keepdims=True), _FLAT))


def _length(x: jax.Array, axis: int) -> jax.Array:
    """The length of a vector, with gradient 0 where it is 0."""
    squared = jnp.sum(jnp.square(x), axis=axis)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
