"""The arms of a study as they ran: phases, prices, sizes, and settings in which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kdjax.budget.price import Price
from kdjax.config import StartConfig, TermConfig
from kdjax.storage.typed_json import optional


@dataclass(frozen=True)
class ArmPhase:
    """A phase of an arm as it ran.

    Attributes:
        terms: terms of the phase's objective.
        until: share of the budget at which the phase ends.
        price: FLOPs of a step, by part.
        batch: number of sequences in a step.
        steps: number of steps in the arm's first run.
    """

    terms: tuple[TermConfig, ...]
    until: float
    price: Price
    batch: int
    steps: int


@dataclass(frozen=True)
class ArmResult:
    """An arm as it ran; what depends on the run is taken from its first one.

    Attributes:
        phases: phases of the arm, in order.
        start: source of the student's first parameters.
        student, optimizer, finetune: settings that are the arm's own.
        teacher: source of the teacher's features; None: the arm looks at no teacher.
        steps, spent, tokens, epochs, words: figures of the arm's first run; see `RunResult`.
        parameters: number of the student's parameters.
        parameters_without_embeddings: number of them outside the embedding tables.
        trains_mlm_head: whether the objective gives the MLM head a gradient.
        needs_teacher: whether the arm looks at a teacher or starts from one.
        untrained: largest parts of the student that get no gradient.
    """

    phases: tuple[ArmPhase, ...]
    start: StartConfig
    student: dict[str, Any]
    optimizer: dict[str, Any]
    finetune: dict[str, Any]
    teacher: Literal["cached", "online"] | None
    steps: int
    spent: dict[str, int]
    tokens: int
    epochs: float
    parameters: int
    parameters_without_embeddings: int
    trains_mlm_head: bool
    needs_teacher: bool
    untrained: tuple[str, ...]
    words: int | None = optional()


@dataclass(frozen=True)
class StudentFacts:
    """The size of the first arm's student."""

    layers: int
    width: int
    heads: int
    ffn: int
    vocab_size: int
    parameters: int
    parameters_without_embeddings: int


@dataclass(frozen=True)
class SettingRow:
    """A setting in which arms differ: its name, and arm -> what it is there, in words."""

    setting: str
    values: dict[str, str]
