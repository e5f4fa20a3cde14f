"""Sinks: what a run's figures go to besides `metrics.jsonl`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kdjax.errors import InputError

MetricsRecord = Mapping[str, Any]

ENDPOINTS = "endpoint"
"""Begins the names of what a run's student was measured to, once its budget was spent."""


@dataclass(frozen=True)
class About:
    """The names of a run, by which it is told from others in TensorBoard and trackers.

    Attributes:
        study: name of the study's directory.
        arm: name of the arm.
        seed: seed of the run.
        recipe: all settings, as plain values.
    """

    study: str
    arm: str
    seed: int
    recipe: Mapping[str, Any]


class Sink(Protocol):
    """A receiver of a run's records, such as TensorBoard."""

    def write(self, step: int, record: MetricsRecord) -> None:
        """Take the record of a step; steps never go back."""

    def close(self) -> None:
        """Write the buffered records and close the sink."""

    def abandon(self) -> None:
        """Let go of files after a failure, without waiting and without an error."""


def is_evaluation(record: MetricsRecord) -> bool:
    """Return whether a record is of held-out text, not of a step."""
    return "loss" not in record


def import_package(name: str) -> Any:
    """Import a tracker's package, which has the name of its setting and of kdjax's extra.

    Raises:
        InputError: it is missing.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"train.log.{name} needs the package {name}, expected it installed: pip install "
            f"'kdjax[{name}]'"
        )
    return importlib.import_module(name)
