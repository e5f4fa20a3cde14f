"""Settings of verdicts: margins, and contrasts of arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kdjax.config.values import FLOAT32_LIMIT, check_names, check_number, check_range, expect

Scale = Literal["accuracy", "correlation", "nats"]
"""Kinds of endpoint by what a difference of 0.01 means: shares of rows (accuracy and F1),
correlations, and losses."""
ROUNDING = 1e-9
"""Largest sum of a contrast's weights that counts as 0."""


@dataclass(frozen=True)
class MarginsConfig:
    """The largest differences that do not matter, by kind of endpoint."""

    accuracy: float | None = None
    """Of accuracies, F1 and means of tasks. From 0; empty: `margin`."""
    correlation: float | None = None
    """Of correlations. From 0; empty: `margin`."""
    nats: float | None = None
    """Of losses, in nats. From 0; empty: `margin`."""

    def __post_init__(self) -> None:
        for name in ("accuracy", "correlation", "nats"):
            if getattr(self, name) is not None:
                check_range(self, "evaluation.margins.", 0, FLOAT32_LIMIT, name)


@dataclass(frozen=True)
class ContrastConfig:
    """A weighted sum of arms on one endpoint, and what is claimed of it."""

    weights: dict[str, float] = field(default_factory=dict)
    """Arm -> its weight, such as {minilm: 1, scratch: -1}, or {a: 1, b: -1, c: -1, d: 1} for a
    difference of differences. They sum to 0."""
    endpoint: str = ""
    """The endpoint, named as `primary` names one. Empty: the primary endpoint."""
    direction: Literal["better", "worse"] = "better"
    """Whether the arms with weights above 0 are claimed to be better than the others, or worse."""


def check_contrasts(contrasts: Mapping[str, ContrastConfig], where: str) -> None:
    """Check the names and weights of contrasts.

    Args:
        contrasts: name -> contrast.
        where: dotted name of the setting, for messages.

    Raises:
        InputError: a name that cannot be one, fewer than two arms, a weight that is 0 or not
            finite, weights that do not sum to 0, or a direction that is none.
    """
    check_names(contrasts, where)
    for name, contrast in contrasts.items():
        check_weights(contrast.weights, f"{where}.{name}.weights")
        is_direction = contrast.direction in ("better", "worse")
        expect(is_direction, f"{where}.{name}.direction", contrast.direction, "better or worse")


def check_weights(weights: Mapping[str, float], where: str) -> None:
    """Check the weights of a contrast.

    Args:
        weights: arm -> its weight.
        where: name of the setting, for messages.

    Raises:
        InputError: fewer than two arms, a weight that is 0 or not finite, or weights that do not
            sum to 0.
    """
    expect(len(weights) > 1, where, weights, "an arm above 0 and another below, at least")
    for arm, weight in weights.items():
        check_number(weight, f"{where}.{arm}", -1e6, 1e6)
        expect(weight != 0, f"{where}.{arm}", weight, "a number other than 0")
    total = sum(weights.values())
    expect(abs(total) <= ROUNDING, where, weights, f"weights that sum to 0 (not {total:g})")
