"""Learning from the teacher's attention: its scores (TinyBERT) or its distributions (MiniLM). H
heads, L length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig
from kdjax.models.features import FeatureRequest, Features
from kdjax.objectives import counts
from kdjax.objectives.base import Batch, FeatureNeeds, Params, TeacherTerm, check_equal, check_whole
from kdjax.objectives.layers import LayerMap, last_pair, pairs, read_map
from kdjax.objectives.reductions import (
    kl,
    kl_of_scores,
    log_softmax,
    mean,
    mse,
    precise,
    valid_pairs,
)

FLOOR = 1e-7
"""The least probability of a student's that the published code takes the logarithm of."""

_MASK = -1e4
_CLEARED = -100.0


def scores_needs(
    student: ModelConfig, teacher: ModelConfig, layers: tuple[tuple[int, int], ...]
) -> FeatureNeeds:
    """The scores of both sides of some pairs of layers.

    Raises:
        InputError: the models differ in their heads.
    """
    check_equal("heads", student.heads, teacher.heads)
    own, other = (frozenset(side) for side in zip(*layers, strict=True))
    return FeatureNeeds(FeatureRequest(scores=own), FeatureRequest(scores=other))


def masked_scores(scores: jax.Array, batch: Batch) -> jax.Array:
    """Scores `[B, H, L, L]` as the published code has them: -10000 is added at the keys that are
    masked."""
    return precise(scores) + jnp.where(_published_keys(batch), 0, _MASK)


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

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return scores_needs(student, teacher, pairs(self.layers, student.layers, teacher.layers))

    def count(self, batch: Batch) -> jax.Array:
        """Valid pairs of positions."""
        return counts.pairs(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = valid_pairs(batch)
        mapped = pairs(self.layers, max(student.scores), max(teacher.scores))
        losses = [mse(student.scores[own], teacher.scores[other], where) for own, other in mapped]
        return sum(losses[1:], start=losses[0])


@dataclass(frozen=True)
class AttentionMseBui2024(TeacherTerm):
    """MSE of the last layers' raw scores, over all B·H·L·L elements.

    The published code of arXiv 2404.19319 (`att_mse`): scores of at most -100, which masked keys
    are, become 0 on both sides and stay in the denominator.
    """

    name: ClassVar[str] = "attention_mse"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return scores_needs(student, teacher, ((student.layers, teacher.layers),))

    def count(self, batch: Batch) -> jax.Array:
        """Sequences."""
        return counts.sequences(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        own = masked_scores(_last(student), batch)
        target = masked_scores(_last(teacher), batch)
        return mse(jnp.where(own <= _CLEARED, 0, own), jnp.where(target <= _CLEARED, 0, target))


@dataclass(frozen=True)
class FirstScoresMseBui2024(TeacherTerm):
    """MSE of the first layers' raw scores, over all B·H·L·L elements.

    The published code of arXiv 2404.19319 (`embedding_mse`), which gives its TinyBERT arm this in
    place of an embedding
    loss. It clears nothing: padded keys count with their raw scores, as the -10000 added on both
        sides cancels.
    """

    name: ClassVar[str] = "first_scores_mse"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return scores_needs(student, teacher, ((1, 1),))

    def count(self, batch: Batch) -> jax.Array:
        """Sequences."""
        return counts.sequences(batch)

    def _loss(
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

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return scores_needs(
            student, teacher, (last_pair(self.teacher_layer, student.layers, teacher.layers),)
        )

    def count(self, batch: Batch) -> jax.Array:
        """Valid rows."""
        return counts.valid(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        where = valid_pairs(batch)
        own, other = last_pair(self.teacher_layer, max(student.scores), max(teacher.scores))
        divergence = kl_of_scores(student.scores[own], teacher.scores[other], where)
        return mean(divergence, batch["valid"][:, None])


@dataclass(frozen=True)
class AttentionKlBui2024(TeacherTerm):
    """KL(A_t‖A_s) of the last layer's attention distributions, mean over B·H·L rows, padded ones
    included.

    The published code of arXiv 2404.19319 (`att_kl`): the student's probabilities are at least 1e-7
        in the logarithm.
    """

    name: ClassVar[str] = "attention_kl"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return scores_needs(student, teacher, ((student.layers, teacher.layers),))

    def count(self, batch: Batch) -> jax.Array:
        """Sequences."""
        return counts.sequences(batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        own, target = (
            log_softmax(masked_scores(_last(features), batch)) for features in (student, teacher)
        )
        return mean(kl(jnp.maximum(own, math.log(FLOOR)), target))


def _last(features: Features) -> jax.Array:
    return features.scores[max(features.scores)]


def _published_keys(batch: Batch) -> jax.Array:
    """Keys a row may see, bool `[B, 1, L, L]`: valid ones, for a padded row too.

    The published code knows no packing; where sequences are packed, a valid row sees its own
    segment, as in the model.
    """
    segments = batch["segments"]
    valid = batch["valid"]
    same = segments[:, :, None] == segments[:, None, :]
    return (valid[:, None, :] & (same | ~valid[:, :, None]))[:, None]
