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
from kdjax.objectives.base import FeatureNeeds, Params, TeacherTerm, check_equal
from kdjax.objectives.reductions import mean, require_logits, weighted_mean
from kdjax.objectives.schedule import current, read

_POSITIONS = ("masked", "all")


@dataclass(frozen=True)
class Logit(TeacherTerm):
    """T²·KL(p_t‖p_s), p = softmax(logits / T), summed over the vocabulary, mean over positions.

    Hinton et al. 2015, arXiv 1503.02531: the factor T² keeps the gradient's size when T changes.
    DistilBERT (Sanh et al. 2019, arXiv 1910.01108) compares all valid positions, not only the
    masked ones.
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
        temperature = read(self.temperature, "temperature", positive=True)
        object.__setattr__(self, "temperature", temperature)
        if self.positions not in _POSITIONS:
            raise InputError(f"positions is {self.positions!r}, expected {' or '.join(_POSITIONS)}")

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        everywhere = self.positions == "all"
        request = FeatureRequest(logits=not everywhere, token_logits=everywhere)
        return _needs(student, teacher, request)

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
        temperature = current(self.temperature, batch)
        divergence = ops.kl(
            self._logits(student) / temperature, self._logits(teacher) / temperature
        )
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
    smaller than a cross-entropy: beside an MLM loss of weight 1 it all but vanishes.
    """

    name: ClassVar[str] = "logit"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        return _needs(student, teacher, FeatureRequest(logits=True))

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of masked slots, by their weights."""
        return normalizers.masked_slots(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        student_log_probs = ops.log_softmax(require_logits(student.logits))
        teacher_probs = jnp.exp(ops.log_softmax(require_logits(teacher.logits)))
        # A mean over the vocabulary, where a cross-entropy has a sum.
        losses = -jnp.mean(teacher_probs * student_log_probs, axis=-1)
        return weighted_mean(losses, batch["label_weights"])


def _needs(student: ModelConfig, teacher: ModelConfig, request: FeatureRequest) -> FeatureNeeds:
    check_equal("vocabulary entries", student.vocab_size, teacher.vocab_size)
    return FeatureNeeds(request, request)
