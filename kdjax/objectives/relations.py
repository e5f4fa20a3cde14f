"""Learning how the teacher's queries, keys and values relate to each other (MiniLM).

B batch, H heads, L length, d head width, D = H·d, A relation heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from typing_extensions import override

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import ops
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.objectives import normalizers
from kdjax.objectives.attention import FLOOR
from kdjax.objectives.base import (
    FeatureNeeds,
    Params,
    TeacherTerm,
    check_equal,
    check_number,
    check_whole,
)
from kdjax.objectives.layer_maps import last, last_pair
from kdjax.objectives.reductions import mean, valid_pairs

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
        """Return A for these two widths.

        Raises:
            InputError: the number of relation heads asked for does not divide both.
        """
        common_width = math.gcd(student_width, teacher_width)
        if self.relation_heads == 0:
            highest = 48 if teacher_width <= 768 else 64
            return max(n for n in range(1, highest + 1) if common_width % n == 0)
        if common_width % self.relation_heads:
            raise InputError(
                f"relation_heads is {self.relation_heads}, expected a divisor of the student's "
                f"width {student_width} and the teacher's {teacher_width}"
            )
        return self.relation_heads

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        # Refuses a number of relation heads that does not divide both.
        self.heads(student_config.width, teacher_config.width)
        student_layer, teacher_layer = self._pair(student_config.layers, teacher_config.layers)
        return FeatureNeeds(
            _request(self._weights, student_layer), _request(self._weights, teacher_layer)
        )

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid rows."""
        return normalizers.valid_positions(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        mask = ops.AttentionMask(batch["segments"], valid_pairs(batch))
        losses = []
        for kind, weight in self._weights.items():
            student_layers = getattr(student, kind)
            teacher_layers = getattr(teacher, kind)
            student_layer, teacher_layer = self._pair(max(student_layers), max(teacher_layers))
            x_s = student_layers[student_layer]
            x_t = teacher_layers[teacher_layer]
            # The models' widths, of which each head has an equal share.
            heads = self.heads(x_s.shape[1] * x_s.shape[3], x_t.shape[1] * x_t.shape[3])
            divergence = ops.relation_kl(x_s, x_t, heads, mask)
            losses.append(weight * mean(divergence, batch["valid"][:, None]))
        return sum(losses[1:], start=losses[0])

    def _pair(self, student: int, teacher: int) -> tuple[int, int]:
        """Return the layers compared, where the models' last layers have these numbers."""
        teacher_layer = self.teacher_layer
        # Layers 22 and 23 count as large size too: when called, the largest layer present may be
        # another term's.
        if teacher_layer == 0 and _LARGE_LAYER <= teacher <= _LARGE_LAYERS:
            teacher_layer = _LARGE_LAYER
        return last_pair(teacher_layer, student, teacher)


@dataclass(frozen=True)
class RelationBui2024(TeacherTerm):
    """Σ_X KL(R_t‖R_s) over the attention heads of the last layers, mean over B·H·L rows; nothing is
    masked.

    The published code of arXiv 2404.19319 (`minilm_v2`). Its regrouping into the teacher's heads is
    right only where the two models have equally many; others are refused.
    """

    name: ClassVar[str] = "relation"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        check_equal("heads", student_config.heads, teacher_config.heads)
        return FeatureNeeds(
            _request(_KINDS, student_config.layers), _request(_KINDS, teacher_config.layers)
        )

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of sequences."""
        return normalizers.sequences(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        losses = []
        for kind in _KINDS:
            # Attention heads stand for relation heads, padded positions included.
            student_scores = ops.relation_scores(last(getattr(student, kind)))
            teacher_scores = ops.relation_scores(last(getattr(teacher, kind)))
            losses.append(mean(ops.kl(student_scores, teacher_scores)))
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

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return _value_needs(student_config, teacher_config, self.teacher_layer)

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid rows."""
        return normalizers.valid_positions(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_layer, teacher_layer = last_pair(
            self.teacher_layer, max(student.value), max(teacher.value)
        )
        student_scores = ops.relation_scores(student.value[student_layer])
        teacher_scores = ops.relation_scores(teacher.value[teacher_layer])
        divergence = ops.kl(student_scores, teacher_scores, valid_pairs(batch))
        return mean(divergence, batch["valid"][:, None])


@dataclass(frozen=True)
class ValueRelationBui2024(TeacherTerm):
    """KL(R_t‖R_s) of the last layers' values, mean over B·H·L rows; nothing is masked.

    The published code of arXiv 2404.19319 (`att_val_kl`): both sides are scaled by the student's
    √d, and the student's probabilities are at least 1e-7 in the logarithm.
    """

    name: ClassVar[str] = "value_relation"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return _value_needs(student_config, teacher_config, 0)

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of sequences."""
        return normalizers.sequences(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_values = last(student.value)
        width = student_values.shape[-1]
        student_log_probs = ops.log_softmax(ops.relation_scores(student_values))
        teacher_log_probs = ops.log_softmax(ops.relation_scores(last(teacher.value), width))
        # The code takes the logarithm of probabilities that may be 0.
        floored = jnp.maximum(student_log_probs, math.log(FLOOR))
        return mean(ops.kl_of_log_probs(floored, teacher_log_probs))


def _value_needs(
    student_config: ModelConfig, teacher_config: ModelConfig, teacher_layer: int
) -> FeatureNeeds:
    """Return the values of the student's last layer and of the teacher's, or a named one."""
    check_equal("heads", student_config.heads, teacher_config.heads)
    pair = last_pair(teacher_layer, student_config.layers, teacher_config.layers)
    return FeatureNeeds(_request(["value"], pair[0]), _request(["value"], pair[1]))


def _request(kinds: Iterable[str], layer: int) -> FeatureRequest:
    """Return a request for features of one layer."""
    layers: dict[str, Any] = {kind: frozenset({layer}) for kind in kinds}
    return FeatureRequest(**layers)
