"""Settings of an arm: its objective over the budget, and where the student starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from kdjax.config.values import LATER, check_number, check_range
from kdjax.errors import InputError

WEIGHT_LIMIT = 1e30
"""Largest weight of a term; a product with a loss stays a float32."""


@dataclass(frozen=True)
class Schedule:
    """A number that changes over the budget.

    Before its first point and after its last it keeps the value it has there.
    """

    shape: Literal["linear", "cosine", "step"] = "linear"
    """The way from one point to the next: on a line, on half a cosine wave, or all at once when the
    next is reached."""
    points: tuple[tuple[float, float], ...] = ()
    """Points [share of the arm's budget spent, value]: finite numbers, the shares ascending, from 0
    to 1."""

    def __post_init__(self) -> None:
        finite = all(math.isfinite(share) and math.isfinite(value) for share, value in self.points)
        if not self.points or not finite:
            raise InputError(
                f"schedule: points are {list(self.points)}, expected one or more pairs of finite "
                "numbers"
            )
        shares = [share for share, _ in self.points]
        ascending = all(before < after for before, after in pairwise(shares))
        if not (shares[0] >= 0 and shares[-1] <= 1 and ascending):
            raise InputError(
                f"schedule: points are at {shares}, expected ascending shares of the budget from 0 "
                "to 1"
            )


@dataclass(frozen=True)
class TermConfig:
    """One term of an objective."""

    name: str
    """Name of the term, such as mlm or relation (docs/objectives/README.md lists them); or
    MODULE:NAME, a term of your own, which is imported."""
    weight: float | Schedule = 1.0
    """Its weight in the sum: a finite number, or a schedule {shape, points} over the budget."""
    variant: Literal["original", "bui2024"] = "original"
    """The form that is computed: that of the method's own paper, or that of the code of arXiv
    2404.19319, where it differs."""
    options: dict[str, Any] = field(default_factory=dict)
    """The term's own options, for instance temperature (a number or a schedule) or
    relation_heads."""

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Schedule):
            check_number(self.weight, f"term {self.name!r}: weight", -WEIGHT_LIMIT, WEIGHT_LIMIT)


@dataclass(frozen=True)
class PhaseConfig:
    """A stretch of an arm's budget with its own objective, compiled and priced by itself."""

    terms: tuple[TermConfig, ...]
    """The terms of its objective."""
    until: float = 1.0
    """Share of the arm's budget at which it ends, above 0; the last phase ends at 1."""

    def __post_init__(self) -> None:
        check_number(self.until, "phase: until", 0, 1, above=True)


@dataclass(frozen=True)
class StartConfig:
    """Where the student's parameters start."""

    source: Literal["random", "teacher"] = "random"
    """`random`: as BERT starts. `teacher`: from the teacher's embeddings, layers and MLM head,
    which are copied where the widths are equal, else projected by a truncated SVD."""
    layers: str | tuple[int, ...] = "uniform"
    """The teacher's layers that the student's start from: uniform (every k-th), spread (evenly from
    the first to the last, as DistilBERT), lower, upper, or a number for each student layer.
    Only with `source: teacher`."""
    cut: Literal["project", "prune"] = field(default="project", metadata=LATER)
    """How a smaller student is cut out of the teacher. `project`: by truncated SVDs. `prune`: the
    heads, feed-forward units and channels that are used most on `calibration_sequences` are kept as
    they are, the others left out (Muralidharan et al. 2024, arXiv 2407.14679); heads are then as
    wide as the teacher's. Only with `source: teacher`."""
    calibration_sequences: int = field(default=1024, metadata=LATER)
    """Number of training sequences, the first ones, on which `prune` measures what the teacher
    uses, 1 to 16,777,216. Its forward passes are on the arm's ledger."""

    def __post_init__(self) -> None:
        check_range(self, "start.", 1, 2**24, "calibration_sequences")
        if self.cut not in ("project", "prune"):
            raise InputError(f"start.cut is {self.cut!r}, expected project or prune")
        if self.source == "random" and self.cut != "project":
            raise InputError(
                f"start.cut is {self.cut!r} and start.source 'random', expected start.source "
                "'teacher'"
            )
        # A start at random copies no layer, whichever are named.
        if self.source == "random" and self.layers != "uniform":
            raise InputError(
                f"start.layers is {self.layers!r} and start.source 'random', expected start.source "
                "'teacher', or no layers"
            )

    @property
    def prunes(self) -> bool:
        """Return whether the teacher is pruned, which takes calibration."""
        return self.cut == "prune"


@dataclass(frozen=True)
class ArmConfig:
    """One way to spend the budget.

    What is not set here is the preset's, and what the preset leaves open is the recipe's.
    """

    preset: str = ""
    """Name of a preset (`kdjax arms` lists them). Empty: the arm's own name, unless terms or phases
    are given."""
    terms: tuple[TermConfig, ...] = ()
    """The objective written out, instead of a preset."""
    phases: tuple[PhaseConfig, ...] = ()
    """Several objectives one after another, instead of a preset."""
    teacher: Literal["online", "cached"] = "online"
    """Whether the teacher runs inside every step, or its stored outputs are read."""
    start: StartConfig | None = None
    """Where the student starts. None: where the preset says, else at random."""
    student: dict[str, Any] = field(default_factory=dict)
    """Settings of `student` that differ for this arm."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """Settings of `train.optimizer` that differ for this arm."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """Settings of `evaluation.finetune` that differ for this arm."""
