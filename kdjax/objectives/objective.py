"""An objective: a weighted sum of terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig
from kdjax.models.features import Features, Request
from kdjax.objectives.base import Needs, Term


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms; a term of weight 0 is left out and costs nothing.

    Attributes:
        terms: key -> (weight, term). The key is the term's name, numbered when a name comes twice.
    """

    terms: tuple[tuple[str, float, Term], ...]

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(term.needs_teacher for _, _, term in self.terms)

    def needs(self, student: ModelConfig, teacher: ModelConfig | None) -> Needs:
        """The features all terms ask for together.

        Raises:
            InputError: a term cannot be computed between these two models.
        """
        ask_student, ask_teacher = Request(), Request()
        for _, _, term in self.terms:
            needs = term.needs(student, teacher)
            ask_student, ask_teacher = ask_student | needs.student, ask_teacher | needs.teacher
        return Needs(ask_student, ask_teacher)

    def init(self, student: ModelConfig, teacher: ModelConfig | None, seed: int) -> dict[str, Any]:
        """The terms' own trainable parameters (projections): trained with the student, never exported."""
        made = {key: term.init(student, teacher, seed) for key, _, term in self.terms}
        return {key: params for key, params in made.items() if params}

    def __call__(
        self, student: Features, teacher: Features, batch: Mapping[str, jax.Array], params: Mapping[str, Any]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sum, and each term by itself before its weight; float32 scalars."""
        values = {key: term(student, teacher, batch, params.get(key, {})) for key, _, term in self.terms}
        total = sum((weight * values[key] for key, weight, _ in self.terms), start=jnp.float32(0))
        return total, values
