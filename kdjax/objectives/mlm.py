"""Masked language modelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
from typing_extensions import override

from kdjax.config import ModelConfig
from kdjax.models import ops
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.objectives import normalizers
from kdjax.objectives.base import FeatureNeeds, Params, Term
from kdjax.objectives.reductions import require_logits, weighted_mean


@dataclass(frozen=True)
class Mlm(Term):
    """Mean cross-entropy of the masked tokens, in nats (Devlin et al. 2019, arXiv 1810.04805).

    −(1/N) Σ log p_s(label) over the N masked positions. Both variants are the same.
    """

    name: ClassVar[str] = "mlm"

    def needs(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None
    ) -> FeatureNeeds:
        """Return the student's logits."""
        return FeatureNeeds(FeatureRequest(logits=True), FeatureRequest())

    def normalizer(self, batch: Batch) -> jax.Array:
        """Return the number of masked slots, by their weights."""
        return normalizers.masked_slots(batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        losses = ops.cross_entropy(require_logits(student.logits), batch["labels"])
        return weighted_mean(losses, batch["label_weights"])
