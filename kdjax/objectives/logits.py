"""Learning from the teacher's distribution over the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models.features import Features, Request
from kdjax.objectives.base import Batch, Needs, Params, TeacherTerm, check_equal, check_number
from kdjax.objectives.reductions import given, kl, log_softmax, weighted_mean


class _Logits(TeacherTerm):
    """A term between both models' logits at the masked slots."""

    name: ClassVar[str] = "logit"

    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> Needs:
        check_equal("vocabulary entries", student.vocab_size, teacher.vocab_size)
        return Needs(Request(logits=True), Request(logits=True))


@dataclass(frozen=True)
class Logit(_Logits):
    """T²·KL(p_t‖p_s), p = softmax(logits / T), summed over the vocabulary, mean over the masked positions.

    Hinton et al. 2015, arXiv 1503.02531: the factor T² keeps the gradient's size when T changes.
    """

    temperature: float = 1.0
    """T: above 1 the teacher's unlikely tokens count more."""
    positions: str = "masked"
    """Where the two are compared; only `masked`, because logits are computed nowhere else."""

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, positive=True)
        if self.positions == "all":
            raise InputError("positions is 'all', expected 'masked': logits are computed at the masked slots only")
        if self.positions != "masked":
            raise InputError(f"positions is {self.positions!r}, expected 'masked'")

    def _loss(self, student: Features, teacher: Features, batch: Batch, params: Params) -> jax.Array:
        own = log_softmax(given(student.logits) / self.temperature)
        target = log_softmax(given(teacher.logits) / self.temperature)
        return self.temperature**2 * weighted_mean(kl(own, target), batch["label_weights"])


@dataclass(frozen=True)
class LogitBui2024(_Logits):
    """−Σ p_t log p_s averaged over the N masked positions and the V vocabulary entries, T = 1.

    The published code of arXiv 2404.19319 (`predictions_ce`). The mean over V makes it V times smaller than a
    cross-entropy: beside an MLM loss of weight 1 it all but vanishes.
    """

    def _loss(self, student: Features, teacher: Features, batch: Batch, params: Params) -> jax.Array:
        own, target = log_softmax(given(student.logits)), log_softmax(given(teacher.logits))
        return weighted_mean(-jnp.mean(jnp.exp(target) * own, axis=-1), batch["label_weights"])
