"""Places that a run's figures go to besides `metrics.jsonl`, and what they are told of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Record = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """Whose figures they are, for those who look at many runs together.

    Attributes:
        study: its directory's name.
        arm: the run's arm.
        seed: the run's seed.
        recipe: every setting, as plain values.
    """

    study: str
    arm: str
    seed: int
    recipe: Mapping[str, Any]


class Sink(Protocol):
    """A place that records go to."""

    def write(self, step: int, record: Record) -> None:
        """Takes the record of a step; steps never go back."""

    def close(self) -> None:
        """Nothing more comes."""


def is_evaluation(record: Record) -> bool:
    """Whether a record is of held-out text, not of a step."""
    return "loss" not in record
