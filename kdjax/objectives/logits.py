"""Learning from the teacher's distribution over the vocabulary. V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from typing_extensions import override

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError
from kdjax.models import ops
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.objectives import normalizers
from kdjax.objectives.base import FeatureNeeds, Params, TeacherTerm
from kdjax.objectives.reductions import mean, require_logits, weighted_mean
from kdjax.objectives.schedule import read_schedule, value_at_step

_POSITIONS = ("masked", "all")
PADDED_TO = (8, 1024)
"""Least and largest power of two to a multiple of which a vocabulary may be padded."""


@dataclass(frozen=True)
class Logit(TeacherTerm):
    """T²·KL(p_t‖p_s), p = softmax(logits / T), summed over the vocabulary, mean over positions.

    Hinton et al. 2015, arXiv 1503.02531: the factor T² keeps the gradient's size when T changes.
    DistilBERT (Sanh et al. 2019, arXiv 1910.01108) compares all valid positions, not only the
    masked ones.

    Where one vocabulary is the other with padding, both distributions are over the entries that
    both have: no token is a later one. The heads compute, and are charged for, all of theirs.
    """

    name: ClassVar[str] = "logit"

    temperature: float | Schedule = 1.0
    """T, a number or a schedule over the budget: above 1 the teacher's unlikely tokens count
    more."""
    positions: str = "masked"
    """Where the two are compared: `masked`, by the weight of each slot, or `all` valid positions.
    The latter runs both MLM heads at every position and costs accordingly."""

    def __post_init__(self) -> None:
        # A frozen dataclass: a recipe's mapping becomes a schedule, which can be hashed.
        temperature = read_schedule(self.temperature, "temperature", positive=True)
        object.__setattr__(self, "temperature", temperature)
        if self.positions not in _POSITIONS:
            raise InputError(f"positions is {self.positions!r}, expected {' or '.join(_POSITIONS)}")

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        everywhere = self.positions == "all"
        request = FeatureRequest(logits=not everywhere, token_logits=everywhere)
        return _needs(student_config, teacher_config, request)

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of masked slots by their weights, or of valid positions."""
        if self.positions == "all":
            return normalizers.valid_positions(batch)
        return normalizers.masked_slots(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        # A schedule's value at this step.
        temperature = value_at_step(self.temperature, batch)
        student_logits, teacher_logits = common_entries(
            self._logits(student), self._logits(teacher)
        )
        divergence = ops.kl(student_logits / temperature, teacher_logits / temperature)
        if self.positions == "all":
            return temperature**2 * mean(divergence, batch["valid"])
        return temperature**2 * weighted_mean(divergence, batch["label_weights"])

    def _logits(self, features: Features) -> jax.Array:
        if self.positions == "all":
            return require_logits(features.token_logits)
        return require_logits(features.logits)


@dataclass(frozen=True)
class LogitBui2024(TeacherTerm):
    """−Σ p_t log p_s averaged over the N masked positions and the V vocabulary entries, T = 1.

    The published code of arXiv 2404.19319 (`predictions_ce`). The mean over V makes it V times
    smaller than a cross-entropy: beside an MLM loss of weight 1 it all but vanishes. V counts the
    entries that both vocabularies have, as in `Logit`.
    """

    name: ClassVar[str] = "logit"

    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        return _needs(student_config, teacher_config, FeatureRequest(logits=True))

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of masked slots, by their weights."""
        return normalizers.masked_slots(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_logits, teacher_logits = common_entries(
            require_logits(student.logits), require_logits(teacher.logits)
        )
        student_log_probs = ops.log_softmax(student_logits)
        teacher_probs = jnp.exp(ops.log_softmax(teacher_logits))
        # A mean over the vocabulary, where a cross-entropy has a sum.
        losses = -jnp.mean(teacher_probs * student_log_probs, axis=-1)
        return weighted_mean(losses, batch["label_weights"])


def _needs(
    student_config: ModelConfig, teacher_config: ModelConfig, request: FeatureRequest
) -> FeatureNeeds:
    _check_vocabularies(student_config.vocab_size, teacher_config.vocab_size)
    return FeatureNeeds(request, request)


def _check_vocabularies(student: int, teacher: int) -> None:
    """Check that two vocabularies are the same, but for padding to a multiple of a power of two.

    Args:
        student: entries of the student's.
        teacher: entries of the teacher's.

    Raises:
        InputError: the numbers differ, and not by such padding.
    """
    if same_but_for_padding(student, teacher):
        return
    least, most = PADDED_TO
    raise InputError(
        f"the student has {student} vocabulary entries, the teacher {teacher}, expected equal "
        f"numbers, or the larger one padded to a multiple of a power of two, {least} to {most}"
    )


def same_but_for_padding(student: int, teacher: int) -> bool:
    """Return whether two numbers of entries can be of one vocabulary, one of them padded.

    That is, whether they are equal, or the larger one is the next multiple of a power of two.

    Args:
        student: entries of the student's vocabulary.
        teacher: entries of the teacher's.
    """
    smaller, larger = sorted((student, teacher))
    least, most = PADDED_TO
    # The largest power of two that divides it.
    multiple = min(larger & -larger, most)
    return smaller == larger or (multiple >= least and larger - smaller < multiple)


def common_entries(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both models' logits `[..., V]` at the V entries that both vocabularies have."""
    entries = min(student.shape[-1], teacher.shape[-1])
    return student[..., :entries], teacher[..., :entries]
