"""An arm: its objective over the budget, and where the student starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from kdjax.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """A number that changes over the budget; before its first point and after its last it stays as
    it is there."""

    shape: Literal["linear", "cosine", "step"] = "linear"
    """How it gets from one point to the next: on a line, on half a cosine wave, or all at once when
    that is reached."""
    points: tuple[tuple[float, float], ...] = ()
    """Points [share of the arm's budget spent, value], in ascending order."""

    def __post_init__(self) -> None:
        numbers = [number for point in self.points for number in point]
        if not self.points or not all(math.isfinite(number) for number in numbers):
            raise InputError(
                f"schedule: points are {list(self.points)}, expected one or more pairs of finite "
                "numbers"
            )
        shares = [share for share, _ in self.points]
        if not (shares[0] >= 0 and shares[-1] <= 1 and all(a < b for a, b in pairwise(shares))):
            raise InputError(
                f"schedule: points are at {shares}, expected ascending shares of the budget from "
                "0 to 1"
            )


@dataclass(frozen=True)
class TermConfig:
    """One term of an objective."""

    name: str
    """The term: mlm, logit, attention_mse, hidden_mse, relation, …; or MODULE:NAME, one of your
    own: it is imported."""
    weight: float | Schedule = 1.0
    """Its weight in the sum: a number, or a schedule {shape, points} over the budget."""
    variant: Literal["original", "bui2024"] = "original"
    """The method's own paper, or what the code of arXiv 2404.19319 computes."""
    options: dict[str, Any] = field(default_factory=dict)
    """The term's own options, for instance temperature (a number or a schedule) or
    relation_heads."""


@dataclass(frozen=True)
class PhaseConfig:
    """A stretch of an arm with its own objective, compiled and priced by itself."""

    terms: tuple[TermConfig, ...]
    """Its objective."""
    until: float = 1.0
    """Share of the arm's budget at which it ends; the last phase ends at 1."""


@dataclass(frozen=True)
class StartConfig:
    """Where the student's parameters start."""

    source: Literal["random", "teacher"] = "random"
    """As BERT starts, or from the teacher's embeddings, layers and MLM head: copied where the
    widths are equal, else projected by a truncated SVD."""
    layers: str | tuple[int, ...] = "uniform"
    """Which teacher layers: uniform (every k-th), spread (evenly from the first to the last, as
    DistilBERT), lower, upper, or one number for each student layer."""


@dataclass(frozen=True)
class ArmConfig:
    """One way to spend the budget. What is not set here is the preset's, and what that leaves open
    the recipe's."""

    preset: str = ""
    """A named arm (`kdjax arms` lists them); empty: the arm's own name, unless terms or phases are
    given."""
    terms: tuple[TermConfig, ...] = ()
    """The objective written out, instead of a preset."""
    phases: tuple[PhaseConfig, ...] = ()
    """Several objectives one after another, instead of a preset."""
    teacher: Literal["online", "cached"] = "online"
    """Whether the teacher runs inside every step, or its stored outputs are read."""
    start: StartConfig | None = None
    """Where the student starts."""
    student: dict[str, Any] = field(default_factory=dict)
    """Settings of `student` that differ for this arm."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Settings of `train.optimizer` that differ for this arm."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """Settings of `evaluation.finetune` that differ for this arm."""
