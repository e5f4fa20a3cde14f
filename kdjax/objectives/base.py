"""The interface of a term: one pure loss that says which features it needs."""

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
from kdjax.models.features import Batch, FeatureRequest, Features
from kdjax.models.ops import at_least_float32

Params = Mapping[str, Any]


@dataclass(frozen=True)
class FeatureNeeds:
    """The features a term or an objective asks for.

    Attributes:
        student: features of the student.
        teacher: features of the teacher; empty when no term looks at one.
    """

    student: FeatureRequest
    teacher: FeatureRequest


class Term(ABC):
    """One pure loss; its options are the fields of a frozen dataclass, its `name` a class variable.

    A term does not hold the models' sizes. It asks for features by layer in `needs`, and when
    called it reads the same layers off the features it receives: where its rule speaks of a model's
    last layer, `needs` always asks for that layer, so the largest layer present is the last one,
    however many layers other terms have asked for.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the term's name in recipes."""

    @property
    def needs_teacher(self) -> bool:
        """Return whether the term looks at the teacher."""
        return False

    @property
    def temperature(self) -> float | Schedule:
        """Return the temperature at which the term reads distributions over the vocabulary."""
        return 1.0

    @property
    def scheduled(self) -> bool:
        """Return whether an option changes over the budget."""
        return any(isinstance(option, Schedule) for option in vars(self).values())

    @abstractmethod
    def needs(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None
    ) -> FeatureNeeds:
        """Return the features this term uses, and no others.

        Raises:
            InputError: the term cannot be computed between these two models.
        """

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return the term's own trainable parameters: none, unless it learns a projection."""
        return {}

    def normalizer(self, batch: Batch) -> jax.Array | None:
        """Return the number that the loss of this batch is divided by, up to a constant factor.

        It is the weight with which the losses of parts of a batch make the loss of the whole,
        however the batch is split: loss(whole) = Σ n(part)·loss(part) / Σ n(part).

        Args:
            batch: arrays `[B, ...]` of a batch, or of a part of one (`Term.__call__`).

        Returns:
            A float32 scalar. None: no weights do, so the batch must not be split.
        """
        return None

    @abstractmethod
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        """Compute the loss.

        Args:
            student: the student's features, at least those `needs` asks for.
            teacher: the teacher's features, likewise.
            batch: `valid` bool `[B, L]`, `segments` int32 `[B, L]` (0 is padding), `labels` int32
                `[B, S]` and `label_weights` float32 `[B, S]` (0 at an unused slot).
                `budget_fraction`, float32 scalar: the share of the arm's budget spent before this
                step, which schedules among the options go by; absent means 0.
            params: the term's own parameters, from `init`.

        Returns:
            A scalar, of any floating type.
        """


class TeacherTerm(Term):
    """A term that compares the student with a teacher."""

    @property
    def needs_teacher(self) -> bool:
        """Return True, as it compares the student with a teacher."""
        return True

    def needs(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None
    ) -> FeatureNeeds:
        """Return the features this term uses, and no others.

        Raises:
            InputError: no teacher, or the term cannot be computed between these two models.
        """
        if teacher_config is None:
            raise InputError(f"{self.name}: found no teacher, expected one to learn from")
        # What is refused is said with the term's name.
        try:
            return self._needs(student_config, teacher_config)
        except InputError as e:
            raise InputError(f"{self.name}: {e}") from None

    @abstractmethod
    def _needs(self, student_config: ModelConfig, teacher_config: ModelConfig) -> FeatureNeeds:
        """Return the features this term uses, where there is a teacher (`needs`)."""


def as_scalar(name: str, loss: Any) -> jax.Array:
    """Return a term's loss as a scalar, float32 or wider.

    Args:
        name: name of the term, for the message.
        loss: what the term returned; a term of a user's own may return anything.

    Raises:
        InputError: the loss is an array of some shape, or no number.
    """
    if isinstance(loss, (int, float)):
        loss = jnp.asarray(loss)
    if not hasattr(loss, "shape"):
        kind = type(loss).__name__
        raise InputError(f"{name}: its loss is a {kind}, expected a scalar")
    if loss.shape != ():
        raise InputError(f"{name}: its loss has the shape {loss.shape}, expected a scalar")
    return at_least_float32(jnp.asarray(loss))


def check_equal(what: str, student: int, teacher: int) -> None:
    """Check that the two models have equally many of something.

    Args:
        what: what is counted, for the message, for instance heads.
        student: the student's number.
        teacher: the teacher's number.

    Raises:
        InputError: the numbers differ.
    """
    if student != teacher:
        raise InputError(
            f"the student has {student} {what}, the teacher {teacher}, expected equal numbers"
        )


def is_amount(value: Any, *, positive: bool = False) -> bool:
    """Return whether an option is a finite number, at least 0 or, if `positive`, above 0."""
    # In Python True is an integer.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    return value > 0 or (value == 0 and not positive)


def check_number(option: str, value: Any) -> None:
    """Check that an option of a term is a finite number of at least 0.

    Args:
        option: name of the option, for the message.
        value: its value.

    Raises:
        InputError: it is not.
    """
    if not is_amount(value):
        raise InputError(f"{option} is {value!r}, expected a number of at least 0")


def check_whole(option: str, value: Any) -> None:
    """Check that an option of a term is a whole number of at least 0.

    Args:
        option: name of the option, for the message.
        value: its value.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f"{option} is {value!r}, expected a whole number of at least 0")
