"""Learning from the teacher's attention: its scores (TinyBERT) or its distributions (MiniLM).

B batch, H heads, L length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from typing_extensions import override

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import ops
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.objectives import normalizers
from kdjax.objectives.base import FeatureNeeds, Params, TeacherTerm, check_equal, check_whole
from kdjax.objectives.layer_maps import LayerMap, Pairs, last, last_pair, pairs, read_map
from kdjax.objectives.reductions import mean, mse, valid_pairs

FLOOR = 1e-7
"""The least probability of a student's that the published code takes the logarithm of."""

_MASK = -1e4
_CLEARED = -100.0


def scores_needs(
    student_config: ModelConfig, teacher_config: ModelConfig, layers: Pairs
) -> FeatureNeeds:
    """Request the attention scores of both models at pairs of layers.

    Args:
        student_config: configuration of the student.
        teacher_config: configuration of the teacher.
        layers: pairs of a student's layer and a teacher's.

    Raises:
        InputError: the models have different numbers of heads, or a layer sees a sliding window
            alone.
    """
    check_equal("heads", student_config.heads, teacher_config.heads)
    for student_layer, teacher_layer in layers:
        _check_global("student", student_config, student_layer)
        _check_global("teacher", teacher_config, teacher_layer)
    student_layers = frozenset(pair[0] for pair in layers)
    teacher_layers = frozenset(pair[1] for pair in layers)
    return FeatureNeeds(
        FeatureRequest(scores=student_layers), FeatureRequest(scores=teacher_layers)
    )


def _check_global(whose: str, model: ModelConfig, layer: int) -> None:
    """Check that a layer's attention sees all positions.

    The scores of a local layer beyond its window enter no softmax: nothing has taught the teacher
    what they should be, and nothing in the student reads them.

    Raises:
        InputError: the layer sees a sliding window alone.
    """
    if model.is_local(layer):
        raise InputError(
            f"layer {layer} of the {whose} sees {model.half_window(layer)} positions to either "
            "side, expected a layer whose attention sees all: scores beyond a window are not "
            "learned"
        )


def masked_scores(features: Features, batch: Batch) -> jax.Array:
    """Return the last layer's scores as the published code has them, `[B, H, L, L]`.

    -10000 is added at the keys that are masked.
    """
    mask = jnp.where(_published_keys(batch), 0, _MASK)
    return ops.at_least_float32(last(features.scores)) + mask


@dataclass(frozen=True)
class AttentionMse(TeacherTerm):
    """Σ_m MSE(A_s^m, A_t^g(m)), A the raw scores before the softmax, over the student's layers m.

    TinyBERT, Jiao et al. 2020, arXiv 1909.10351: L_attn, and L_model with λ = 1. Each MSE is a mean
    over heads and valid pairs of positions; a masked key is 0 on both sides and does not count.
    """

    name: ClassVar[str] = "attention_mse"

    layers: LayerMap = "uniform"
    """The map g."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", read_map(self.layers))

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return scores_needs(
            student_config,
            teacher_config,
            pairs(self.layers, student_config.layers, teacher_config.layers),
        )

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid pairs of positions."""
        return normalizers.pairs(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = valid_pairs(batch)
        # The last layers are the largest ones present (`Term`).
        losses = [
            mse(student.scores[student_layer], teacher.scores[teacher_layer], where)
            for student_layer, teacher_layer in pairs(
                self.layers, max(student.scores), max(teacher.scores)
            )
        ]
        return sum(losses[1:], start=losses[0])


@dataclass(frozen=True)
class AttentionMseBui2024(TeacherTerm):
    """MSE of the last layers' raw scores, over all B·H·L·L elements.

    The published code of arXiv 2404.19319 (`att_mse`): scores of at most -100, which masked keys
    are, become 0 on both sides and stay in the denominator.
    """

    name: ClassVar[str] = "attention_mse"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return scores_needs(
            student_config, teacher_config, ((student_config.layers, teacher_config.layers),)
        )

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of sequences."""
        return normalizers.sequences(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_scores = masked_scores(student, batch)
        teacher_scores = masked_scores(teacher, batch)
        # What is masked on both sides counts as equal, in the mean over all pairs.
        return mse(_cleared(student_scores), _cleared(teacher_scores))


@dataclass(frozen=True)
class FirstScoresMseBui2024(TeacherTerm):
    """MSE of the first layers' raw scores, over all B·H·L·L elements.

    The published code of arXiv 2404.19319 (`embedding_mse`), which gives its TinyBERT arm this in
    place of an embedding loss. It clears nothing: padded keys count with their raw scores, as the
    -10000 added on both sides cancels.
    """

    name: ClassVar[str] = "first_scores_mse"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return scores_needs(student_config, teacher_config, ((1, 1),))

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of sequences."""
        return normalizers.sequences(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        return mse(student.scores[1], teacher.scores[1])


@dataclass(frozen=True)
class AttentionKl(TeacherTerm):
    """KL(A_t‖A_s) of the last layer's attention distributions, mean over heads and valid rows.

    MiniLM's attention transfer, Wang et al. 2020, arXiv 2002.10957: L_AT.
    """

    name: ClassVar[str] = "attention_kl"

    teacher_layer: int = 0
    """The teacher's layer; 0: its last."""

    def __post_init__(self) -> None:
        check_whole("teacher_layer", self.teacher_layer)

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        pair = last_pair(self.teacher_layer, student_config.layers, teacher_config.layers)
        return scores_needs(student_config, teacher_config, (pair,))

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of valid rows."""
        return normalizers.valid_positions(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_layer, teacher_layer = last_pair(
            self.teacher_layer, max(student.scores), max(teacher.scores)
        )
        divergence = ops.kl(
            student.scores[student_layer], teacher.scores[teacher_layer], valid_pairs(batch)
        )
        # Rows of padding have no valid key and do not count.
        return mean(divergence, batch["valid"][:, None])


@dataclass(frozen=True)
class AttentionKlBui2024(TeacherTerm):
    """KL(A_t‖A_s) of the last layer's attention distributions, mean over B·H·L rows, padded ones
    included.

    The published code of arXiv 2404.19319 (`att_kl`): the student's probabilities are at least 1e-7
    in the logarithm.
    """

    name: ClassVar[str] = "attention_kl"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return scores_needs(
            student_config, teacher_config, ((student_config.layers, teacher_config.layers),)
        )

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of sequences."""
        return normalizers.sequences(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_log_probs = ops.log_softmax(masked_scores(student, batch))
        teacher_log_probs = ops.log_softmax(masked_scores(teacher, batch))
        # A masked key's probability underflows to 0, which has no logarithm.
        floored = jnp.maximum(student_log_probs, math.log(FLOOR))
        return mean(ops.kl_of_log_probs(floored, teacher_log_probs))


def _cleared(scores: jax.Array) -> jax.Array:
    """Return the scores with 0 in the place of masked ones."""
    return jnp.where(scores <= _CLEARED, 0, scores)


def _published_keys(batch: Batch) -> jax.Array:
    """Return the keys that a row may see, bool `[B, 1, L, L]`: valid ones, for a padded row too.

    The published code knows no packing; where sequences are packed, a valid row sees its own
    segment, as in the model.
    """
    segments = batch["segments"]
    valid = batch["valid"]
    same_segment = segments[:, :, None] == segments[:, None, :]
    return (valid[:, None, :] & (same_segment | ~valid[:, :, None]))[:, None]
