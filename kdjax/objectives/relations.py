"""Learning how the teacher's queries, keys and values relate to each other (MiniLM). H heads, d
head width, D = H·d."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.kernels import relation
from kdjax.kernels.split import ROWS, on_tpu, split
from kdjax.models.features import FeatureRequest, Features
from kdjax.models.reference import is_canonical
from kdjax.objectives import counts
from kdjax.objectives.attention import FLOOR
from kdjax.objectives.base import (
    Batch,
    FeatureNeeds,
    Params,
    TeacherTerm,
    check_equal,
    check_number,
    check_whole,
)
from kdjax.objectives.layers import last_pair
from kdjax.objectives.reductions import kl, kl_of_scores, log_softmax, mean, valid_pairs

_KINDS = ("query", "key", "value")

_LARGE_LAYERS = 24
_LARGE_LAYER = 21
"""Layers of large size, and the one that MiniLMv2 learns from."""


@dataclass(frozen=True)
class Relation(TeacherTerm):
    """Σ_X w_X · KL(R_t‖R_s), R = softmax(X Xᵀ/√(D/A)), X in query, key, value; mean over A heads
    and valid rows.

    MiniLMv2, Wang et al. 2021, arXiv 2012.15828. The heads are joined to the width D and split anew
    into A relation heads, so the two models may differ in heads and in width. Keys outside a row's
    segment have probability 0.
    """

    name: ClassVar[str] = "relation"

    relation_heads: int = 0
    """A; it divides both widths. 0: as many as base size takes, 48, or large size, 64 (a teacher
    wider than 768); where that does not divide both widths, the largest smaller number that
    does."""
    teacher_layer: int = 0
    """The teacher's layer; 0: the method's choice, the last, but 21 of the 24 of large size."""
    query: float = 1.0
    """Weight of the query relation."""
    key: float = 1.0
    """Weight of the key relation."""
    value: float = 1.0
    """Weight of the value relation."""

    def __post_init__(self) -> None:
        check_whole("relation_heads", self.relation_heads)
        check_whole("teacher_layer", self.teacher_layer)
        for kind in _KINDS:
            check_number(kind, getattr(self, kind))
        if not self._weights:
            raise InputError("query, key and value are all 0, expected a weight above 0")

    @property
    def _weights(self) -> dict[str, float]:
        return {kind: getattr(self, kind) for kind in _KINDS if getattr(self, kind) > 0}

    def heads(self, student_width: int, teacher_width: int) -> int:
        """A for these two widths.

        Raises:
            InputError: the number of relation heads asked for does not divide both.
        """
        common = math.gcd(student_width, teacher_width)
        if self.relation_heads == 0:
            most = 48 if teacher_width <= 768 else 64
            return max(n for n in range(1, most + 1) if common % n == 0)
        if common % self.relation_heads:
            raise InputError(
                f"relation_heads is {self.relation_heads}, expected a divisor of the student's "
                f"width {student_width} "
                f"and the teacher's {teacher_width}"
            )
        return self.relation_heads

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        self.heads(student.width, teacher.width)
        own, other = self._pair(student.layers, teacher.layers)
        return FeatureNeeds(_request(self._weights, own), _request(self._weights, other))

    def count(self, batch: Batch) -> jax.Array:
        """Valid rows."""
        return counts.valid(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = valid_pairs(batch)
        losses = []
        for kind, weight in self._weights.items():
            seen = getattr(student, kind)
            target = getattr(teacher, kind)
            own, other = self._pair(max(seen), max(target))
            x = seen[own]
            y = target[other]
            heads = self.heads(x.shape[1] * x.shape[3], y.shape[1] * y.shape[3])
            losses.append(weight * _divergence(x, y, heads, batch, where))
        return sum(losses[1:], start=losses[0])

    def _pair(self, student: int, teacher: int) -> tuple[int, int]:
        # Layers 22 and 23 count as large size too: when called, the largest layer present may be
        # another term's.
        chosen = _LARGE_LAYER if _LARGE_LAYER <= teacher <= _LARGE_LAYERS else 0
        return last_pair(self.teacher_layer or chosen, student, teacher)


@dataclass(frozen=True)
class RelationBui2024(TeacherTerm):
    """Σ_X KL(R_t‖R_s) over the attention heads of the last layers, mean over B·H·L rows; nothing is
    masked.

    The published code of arXiv 2404.19319 (`minilm_v2`). Its regrouping into the teacher's heads is
    right only where the two models have equally many; others are refused.
    """

    name: ClassVar[str] = "relation"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        check_equal("heads", student.heads, teacher.heads)
        return FeatureNeeds(_request(_KINDS, student.layers), _request(_KINDS, teacher.layers))

    def count(self, batch: Batch) -> jax.Array:
        """Sequences."""
        return counts.sequences(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        losses = []
        for kind in _KINDS:
            both = (getattr(features, kind) for features in (student, teacher))
            losses.append(mean(kl_of_scores(*(_products(x[max(x)]) for x in both))))
        return sum(losses[1:], start=losses[0])


@dataclass(frozen=True)
class ValueRelation(TeacherTerm):
    """KL(R_t‖R_s), R = softmax(V Vᵀ/√d) of each head of the last layer, mean over heads and valid
    rows.

    MiniLM, Wang et al. 2020, arXiv 2002.10957: L_VR; masked like the attention. Head widths may
        differ.
    """

    name: ClassVar[str] = "value_relation"

    teacher_layer: int = 0
    """The teacher's layer; 0: its last."""

    def __post_init__(self) -> None:
        check_whole("teacher_layer", self.teacher_layer)

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return _value_needs(student, teacher, self.teacher_layer)

    def count(self, batch: Batch) -> jax.Array:
        """Valid rows."""
        return counts.valid(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = valid_pairs(batch)
        own, other = last_pair(self.teacher_layer, max(student.value), max(teacher.value))
        divergence = kl_of_scores(
            _products(student.value[own]), _products(teacher.value[other]), where
        )
        return mean(divergence, batch["valid"][:, None])


@dataclass(frozen=True)
class ValueRelationBui2024(TeacherTerm):
    """KL(R_t‖R_s) of the last layers' values, mean over B·H·L rows; nothing is masked.

    The published code of arXiv 2404.19319 (`att_val_kl`): both sides are scaled by the student's
    √d, and the student's probabilities are at least 1e-7 in the logarithm.
    """

    name: ClassVar[str] = "value_relation"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return _value_needs(student, teacher, 0)

    def count(self, batch: Batch) -> jax.Array:
        """Sequences."""
        return counts.sequences(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        seen, target = (features.value[max(features.value)] for features in (student, teacher))
        width = seen.shape[-1]
        own = jnp.maximum(log_softmax(_products(seen, width)), math.log(FLOOR))
        return mean(kl(own, log_softmax(_products(target, width))))


def _value_needs(student: ModelConfig, teacher: ModelConfig, teacher_layer: int) -> FeatureNeeds:
    check_equal("heads", student.heads, teacher.heads)
    own, other = last_pair(teacher_layer, student.layers, teacher.layers)
    return FeatureNeeds(_request(["value"], own), _request(["value"], other))


def _request(kinds: Iterable[str], layer: int) -> FeatureRequest:
    layers: dict[str, Any] = {kind: frozenset({layer}) for kind in kinds}
    return FeatureRequest(**layers)


def _divergence(
    x: jax.Array, y: jax.Array, heads: int, batch: Batch, where: jax.Array
) -> jax.Array:
    """KL(R_t‖R_s), mean over relation heads and valid rows."""
    own = _join(x)
    target = _join(y)
    if (
        not is_canonical()
        and on_tpu()
        and relation.fits(own.shape[1], (own.shape[2], target.shape[2]), heads)
    ):
        groups = jnp.where(batch["valid"], batch["segments"], 0)
        return mean(_rows(own, target, groups, heads), batch["valid"]) / heads
    divergence = kl_of_scores(_products(_part(own, heads)), _products(_part(target, heads)), where)
    return mean(divergence, batch["valid"][:, None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _rows(student: jax.Array, teacher: jax.Array, groups: jax.Array, heads: int) -> jax.Array:
    """KL(R_t‖R_s) of each row, summed over relation heads: `[B, L]`; no gradient for the
    teacher."""
    return _rows_forward(student, teacher, groups, heads)[0]


def _rows_forward(
    student: jax.Array, teacher: jax.Array, groups: jax.Array, heads: int
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    kernel = functools.partial(relation.forward, heads=heads)
    made: jax.Array = split(kernel, (ROWS,) * 3, ROWS)(student, teacher, groups)
    return made, (student, teacher, groups)


def _rows_backward(
    heads: int, kept: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, None, None]:
    kernel = functools.partial(relation.backward, heads=heads)
    return split(kernel, (ROWS,) * 4, ROWS)(*kept, gradient), None, None


_rows.defvjp(_rows_forward, _rows_backward)


def _join(x: jax.Array) -> jax.Array:
    """`[B, H, L, d]` to `[B, L, D]`."""
    return x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)


def _part(x: jax.Array, heads: int) -> jax.Array:
    """`[B, L, D]` to `[B, heads, L, D/heads]`."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _products(x: jax.Array, width: int | None = None) -> jax.Array:
    """X Xᵀ/√width over the positions, `[B, H, L, L]` in float32 or wider; `width` is x's own unless
    given."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum("BHLd,BHMd->BHLM", x, x, preferred_element_type=wide) / math.sqrt(
        width or x.shape[-1]
    )
