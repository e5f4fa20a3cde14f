"""Learning the shape of the teacher's attention, by correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from typing_extensions import override

from kdjax.config import ModelConfig
from kdjax.errors import InputError, nearest
from kdjax.models import ops
from kdjax.models.features import Batch, Features
from kdjax.objectives import normalizers
from kdjax.objectives.attention import masked_scores, scores_needs
from kdjax.objectives.base import FeatureNeeds, Params, TeacherTerm
from kdjax.objectives.layer_maps import last
from kdjax.objectives.reductions import mean, valid_pairs

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

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        if "head" in self.axes and student_config.heads < 2:
            raise InputError(
                f"axes is {self.axes!r} with {student_config.heads} head, "
                "expected at least 2 heads to correlate"
            )
        return scores_needs(
            student_config, teacher_config, ((student_config.layers, teacher_config.layers),)
        )

    def normalizer(self, batch: Batch) -> jax.Array | None:
        """Return the number of rows or columns, or of pairs of positions.

        It is None where rows and pairs are compared, each with a mean of its own.
        """
        names = _read_axes(self.axes, _AXES)
        where = _comparable_pairs(batch)
        if "head" not in names:
            return normalizers.count_true(jnp.any(where, axis=-1))
        if len(names) > 1:
            return None
        return normalizers.count_true(where)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        pairs = _comparable_pairs(batch)
        student_probs = _probs(last(student.scores), pairs)
        teacher_probs = _probs(last(teacher.scores), pairs)
        losses = []
        for name in _read_axes(self.axes, _AXES):
            axis = _AXES[name]
            where = pairs
            if name == "head":
                # The pairs have one head; what is counted along this axis are all of them.
                where = jnp.broadcast_to(pairs, student_probs.shape)
            count = jnp.sum(where, axis=axis, keepdims=True, dtype=jnp.int32)
            student_unit = _unit(_deviations(student_probs, axis, where, count), axis)
            teacher_unit = _unit(_deviations(teacher_probs, axis, where, count), axis)
            # The cosine of deviations from the mean is the correlation.
            correlation = jnp.sum(student_unit * teacher_unit, axis=axis, keepdims=True)
            losses.append(mean(1 - correlation, count > 1))
        return sum(losses[1:], start=losses[0])


@dataclass(frozen=True)
class PearsonBui2024(TeacherTerm):
    """Σ_axis (1 − mean Pearson correlation of the last attention along the axis), padding too.

    The published code of arXiv 2404.19319 (`pear_col`): along keys, queries, heads and the
    sequences of the batch, with 1e-8 added to the product of the lengths. Padded rows and columns
    count.
    """

    name: ClassVar[str] = "pearson"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return scores_needs(
            student_config, teacher_config, ((student_config.layers, teacher_config.layers),)
        )

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_probs = jnp.exp(ops.log_softmax(masked_scores(student, batch)))
        teacher_probs = jnp.exp(ops.log_softmax(masked_scores(teacher, batch)))
        losses = []
        for axis in _AXES.values():
            x = student_probs - jnp.mean(student_probs, axis=axis, keepdims=True)
            y = teacher_probs - jnp.mean(teacher_probs, axis=axis, keepdims=True)
            correlation = jnp.sum(x * y, axis=axis) / (_length(x, axis) * _length(y, axis) + _EPS)
            losses.append(1 - mean(correlation))
        return sum(losses[1:], start=losses[0])


def _comparable_pairs(batch: Batch) -> jax.Array:
    """Return the valid pairs of positions in segments of more than one, bool `[B, 1, L, L]`."""
    where = valid_pairs(batch)
    return where & (jnp.sum(where, axis=-1, keepdims=True, dtype=jnp.int32) > 1)


def _probs(scores: jax.Array, where: jax.Array) -> jax.Array:
    """Compute attention probabilities `[B, H, L, L]`, 0 outside `where`."""
    return jnp.where(where, jnp.exp(ops.log_softmax(scores, where)), 0)


def _read_axes(axes: Any, known: Sequence[str] | dict[str, int]) -> list[str]:
    """Read the names in a list such as `key,query`.

    Raises:
        InputError: a name that is not known, or one that comes twice.
    """
    names = []
    if isinstance(axes, str):
        names = [name.strip() for name in axes.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"axes: unknown axis {name!r}{nearest(name, known)}")
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"axes is {axes!r}, expected different ones of {', '.join(known)}, joined by commas"
        )
    return names


def _deviations(p: jax.Array, axis: int, where: jax.Array, count: jax.Array) -> jax.Array:
    """Compute differences from the mean at `where`, 0 elsewhere; `p` is 0 there already."""
    average = jnp.sum(p, axis=axis, keepdims=True) / jnp.maximum(count, 1)
    return jnp.where(where, p - average, 0)


def _unit(x: jax.Array, axis: int) -> jax.Array:
    """Scale vectors to length 1 along an axis; 0 stays 0."""
    squared_length = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    # Bounded below, so that the gradient at 0 is finite.
    return x * jax.lax.rsqrt(jnp.maximum(squared_length, _FLAT))


def _length(x: jax.Array, axis: int) -> jax.Array:
    """Compute the length of vectors along an axis, with gradient 0 where it is 0."""
    squared = jnp.sum(jnp.square(x), axis=axis)
    # The root's gradient is infinite at 0, and 0 times that would be NaN.
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
