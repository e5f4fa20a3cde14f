"""What a term is: one pure loss that says which features it needs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError
from kdjax.models.features import FeatureRequest, Features
from kdjax.objectives.reductions import precise

Batch = Mapping[str, jax.Array]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class FeatureNeeds:
    """The features a term or an objective asks for.

    Attributes:
        student: of the student.
        teacher: of the teacher; empty when no term looks at one.
    """

    student: FeatureRequest
    teacher: FeatureRequest


class Term(ABC):
    """One pure loss; its options are the fields of a frozen dataclass, its `name` a class variable.

    A term does not hold the models' sizes. It asks for features by layer in `needs`, and when
    called it reads the same
    layers off the features it is given: where its rule speaks of a model's last layer, `needs`
    always asks for that layer, so the largest layer present is the last one, however many layers
    other terms have asked for.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the term is called."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the term looks at the teacher."""
        return False

    @property
    def temperature(self) -> float | Schedule:
        """That at which the term reads distributions over the vocabulary."""
        return 1.0

    @property
    def scheduled(self) -> bool:
        """Whether an option changes over the budget."""
        return any(isinstance(option, Schedule) for option in vars(self).values())

    @abstractmethod
    def needs(self, student: ModelConfig, teacher: ModelConfig | None) -> FeatureNeeds:
        """The features this term uses, and no others.

        Raises:
            InputError: the term cannot be computed between these two models.
        """

    def init(self, student: ModelConfig, teacher: ModelConfig | None, seed: int) -> dict[str, Any]:
        """The term's own trainable parameters: none, unless it learns a projection."""
        return {}

    def count(self, batch: Batch) -> jax.Array | None:
        """What the loss of this batch is a mean over, up to a constant factor: a float32 scalar.

        It is the weight with which the losses of parts of a batch make the loss of the whole,
        however the batch is
        split: loss(whole) = Σ count(part)·loss(part) / Σ count(part). None: no weights do, so the
        batch must not be split.

        Args:
            batch: as for the loss.
        """
        return None

    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        """The loss.

        Args:
            student: the student's features, at least those `needs` asks for.
            teacher: the teacher's.
            batch: `valid` bool `[B, L]`, `segments` int32 `[B, L]` (0 is padding), `labels` int32
                `[B, S]` and `label_weights` float32 `[B, S]` (0 at an unused slot). `progress`,
                float32 scalar: the share of the arm's budget spent before this step, which
                schedules among the options go by; absent means 0.
            params: from `init`.

        Returns:
            A scalar, float32 or wider.

        Raises:
            InputError: the term, one of a user's own, makes no scalar.
        """
        loss = self._loss(student, teacher, batch, params)
        shape = () if isinstance(loss, (int, float)) else getattr(loss, "shape", None)
        if shape != ():
            found = f"is a {type(loss).__name__}" if shape is None else f"has the shape {shape}"
            raise InputError(f"{self.name}: its loss {found}, expected a scalar")
        return precise(jnp.asarray(loss))

    @abstractmethod
    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        """What the term computes."""


class TeacherTerm(Term):
    """A term that compares the student with a teacher."""

    @property
    def needs_teacher(self) -> bool:
        """Yes."""
        return True

    def needs(self, student: ModelConfig, teacher: ModelConfig | None) -> FeatureNeeds:
        """As of `Term`; a missing teacher is refused."""
        if teacher is None:
            raise InputError(f"{self.name}: found no teacher, expected one to learn from")
        try:
            return self._needs(student, teacher)
        except InputError as e:
            raise InputError(f"{self.name}: {e}") from None

    @abstractmethod
    def _needs(self, student: ModelConfig, teacher: ModelConfig) -> FeatureNeeds:
        """`needs`, with a teacher."""


def check_equal(what: str, student: int, teacher: int) -> None:
    """Raises InputError unless the two models have equally many of `what`."""
    if student != teacher:
        raise InputError(
            f"the student has {student} {what}, the teacher {teacher}, expected equal numbers"
        )


def is_amount(value: Any, *, positive: bool = False) -> bool:
    """Whether an option is a finite number, at least 0 or, if `positive`, above 0."""
    is_number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    return is_number and (value > 0 if positive else value >= 0)


def check_number(option: str, value: Any) -> None:
    """Raises InputError unless an option is a finite number of at least 0."""
    if not is_amount(value):
        raise InputError(f"{option} is {value!r}, expected a number of at least 0")


def check_whole(option: str, value: Any) -> None:
    """Raises InputError unless an option is a whole number of at least 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{option} is {value!r}, expected a whole number of at least 0")
