"""Objectives: weighted sums of terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError
from kdjax.models.features import FeatureRequest, Features
from kdjax.objectives.base import FeatureNeeds, Term, as_scalar
from kdjax.objectives.schedule import value_at_step


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms.

    Attributes:
        terms: (key, weight, term). The key is the term's name, numbered when a name comes twice;
            the weight is a number or a schedule over the budget.

    Example:
        >>> objective = Objective((("mlm", 1.0, get("mlm")), ("logit", 0.5, get("logit"))))
        >>> objective.needs_teacher, objective.scheduled
        (True, False)
    """

    terms: tuple[tuple[str, float | Schedule, Term], ...]

    @property
    def needs_teacher(self) -> bool:
        """Return whether any term looks at the teacher."""
        return any(term.needs_teacher for _, _, term in self.terms)

    @property
    def scheduled(self) -> bool:
        """Return whether a weight or a term's option changes over the budget."""
        return any(isinstance(weight, Schedule) or term.scheduled for _, weight, term in self.terms)

    def needs(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None
    ) -> FeatureNeeds:
        """Return the features all terms ask for together.

        Raises:
            InputError: a term cannot be computed between these two models.
        """
        student_request = FeatureRequest()
        teacher_request = FeatureRequest()
        for _, _, term in self.terms:
            needs = term.needs(student_config, teacher_config)
            student_request |= needs.student
            teacher_request |= needs.teacher
        return FeatureNeeds(student_request, teacher_request)

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return the terms' own trainable parameters (projections), by the terms' keys.

        They are trained with the student and never exported.
        """
        # Terms that learn nothing have no entry.
        params = {
            key: term.init(student_config, teacher_config, seed) for key, _, term in self.terms
        }
        return {key: term_params for key, term_params in params.items() if term_params}

    def normalizers(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Return the number that each term's loss of this batch is divided by.

        Raises:
            InputError: a term whose batch must not be split.
        """
        normalizers = {}
        for key, _, term in self.terms:
            normalizer = term.normalizer(batch)
            if normalizer is None:
                raise InputError(
                    f"{key}: looks at a batch as a whole, expected train.grad_accum_steps to be 1"
                )
            normalizers[key] = normalizer
        return normalizers

    def __call__(
        self,
        student: Features,
        teacher: Features,
        batch: Mapping[str, jax.Array],
        params: Mapping[str, Any],
        budget_fraction: float | jax.Array = 0.0,
        shares: Mapping[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Compute the loss of a batch.

        Args:
            student: the student's features, at least those `needs` asks for.
            teacher: the teacher's features, likewise.
            batch: the batch, as for a term.
            params: the terms' own parameters, from `init`.
            budget_fraction: the share of the arm's budget spent before this step, which schedules
                go by.
            shares: each term's share, in a part of a batch, of the whole batch's normalizer: its
                value is multiplied by it, so that the losses of all parts add up to that of the
                whole.

        Returns:
            The sum, and each term by itself before its weight; float32 scalars.

        Raises:
            InputError: a term, one of a user's own, computes no scalar.

        Example:
            >>> objective = Objective((("mlm", 2.0, get("mlm")),))
            >>> student = Features(logits=jnp.zeros((1, 2, 8)))  # two slots, a vocabulary of eight
            >>> batch = {"labels": jnp.array([[3, 5]]), "label_weights": jnp.ones((1, 2))}
            >>> loss, losses = objective(student, Features(), batch, {})
            >>> print(f"{loss:.4f}, before its weight {losses['mlm']:.4f}")  # ln 8 is 2.0794
            4.1589, before its weight 2.0794
        """
        # Where terms read their schedules.
        batch = {**batch, "budget_fraction": jnp.asarray(budget_fraction, jnp.float32)}
        total = jnp.float32(0)
        losses = {}
        for key, weight, term in self.terms:
            loss = as_scalar(term.name, term(student, teacher, batch, params.get(key, {})))
            # Losses of parts add up to that of the whole batch.
            if shares is not None:
                loss = shares[key] * loss
            losses[key] = loss
            total = total + value_at_step(weight, batch) * loss
        return total, losses
