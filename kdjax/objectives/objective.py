"""An objective: a weighted sum of terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError
from kdjax.models.features import FeatureRequest, Features
from kdjax.objectives.base import FeatureNeeds, Term
from kdjax.objectives.schedule import current


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms.

    Attributes:
        terms: (key, weight, term). The key is the term's name, numbered when a name comes twice;
            the weight is a number or a schedule over the budget.
    """

    terms: tuple[tuple[str, float | Schedule, Term], ...]

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(term.needs_teacher for _, _, term in self.terms)

    @property
    def scheduled(self) -> bool:
        """Whether a weight or a term's option changes over the budget."""
        return any(isinstance(weight, Schedule) or term.scheduled for _, weight, term in self.terms)

    def needs(self, student: ModelConfig, teacher: ModelConfig | None) -> FeatureNeeds:
        """The features all terms ask for together.

        Raises:
            InputError: a term cannot be computed between these two models.
        """
        ask_student = FeatureRequest()
        ask_teacher = FeatureRequest()
        for _, _, term in self.terms:
            needs = term.needs(student, teacher)
            ask_student = ask_student | needs.student
            ask_teacher = ask_teacher | needs.teacher
        return FeatureNeeds(ask_student, ask_teacher)

    def init(self, student: ModelConfig, teacher: ModelConfig | None, seed: int) -> dict[str, Any]:
        """The terms' own trainable parameters (projections): trained with the student, never
        exported."""
        made = {key: term.init(student, teacher, seed) for key, _, term in self.terms}
        return {key: params for key, params in made.items() if params}

    def counts(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Each term's `count`: what its loss of this batch is a mean over.

        Raises:
            InputError: a term whose batch must not be split.
        """
        found = {key: term.count(batch) for key, _, term in self.terms}
        for key, count in found.items():
            if count is None:
                raise InputError(
                    f"{key}: looks at a batch as a whole, expected train.grad_accum_steps to be 1"
                )
        return {key: count for key, count in found.items() if count is not None}

    def __call__(
        self,
        student: Features,
        teacher: Features,
        batch: Mapping[str, jax.Array],
        params: Mapping[str, Any],
        progress: float | jax.Array = 0.0,
        shares: Mapping[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a batch.

        Args:
            student: the student's features, at least those `needs` asks for.
            teacher: the teacher's.
            batch: as for a term.
            params: from `init`.
            progress: the share of the arm's budget spent before this step, which schedules go by.
            shares: of a part of a batch, each term's share of the whole batch's `counts`: its value
                is multiplied by it, so that the losses of all parts add up to that of the whole.

        Returns:
            The sum, and each term by itself before its weight; float32 scalars.
        """
        seen = {**batch, "progress": jnp.asarray(progress, jnp.float32)}
        values = {
            key: term(student, teacher, seen, params.get(key, {})) for key, _, term in self.terms
        }
        if shares is not None:
            values = {key: shares[key] * loss for key, loss in values.items()}
        total = sum(
            (current(weight, seen) * values[key] for key, weight, _ in self.terms),
            start=jnp.float32(0),
        )
        return total, values
