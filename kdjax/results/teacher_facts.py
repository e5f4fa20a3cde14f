"""The facts of a study's teacher, and of its stored outputs.

Costs are in FLOPs, losses in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.storage.typed_json import optional, rest


@dataclass(frozen=True)
class PretrainingFacts:
    """The pretraining of a teacher by kdjax.

    Attributes:
        seed: seed of its training.
        at: share of the budget at which it was taken.
        budget: FLOPs of the whole training.
        tokens: tokens seen, padding not counted.
        epochs: passes over its text; None in earlier cards.
        words: words seen, between white space; None where its text had no count.
        others: further entries of the card.
    """

    seed: int
    at: float
    budget: int
    tokens: int
    epochs: float | None = optional()
    words: int | None = optional()
    others: dict[str, Any] = rest()


@dataclass(frozen=True)
class TeacherFacts:
    """The facts of a teacher; of several together, the first one's with mean losses.

    Attributes:
        source: path or name the teacher was read from; empty: it was trained here.
        training_flops: FLOPs of pretraining the teacher; 0: not known.
        head_flops: FLOPs of fitting an MLM head to its frozen encoder.
        mlm_loss: held-out loss of the teacher's own MLM head; None without one.
        mlm_accuracy: held-out accuracy of that head.
        tuning_flops: FLOPs of training the teacher's encoder further, with its head.
        note: remark of the recipe on the teacher.
        architecture: settings of the teacher's model.
        pretraining: facts of its pretraining by kdjax; None where kdjax did not pretrain it.
        teachers: facts of each of several teachers; None where there is one.
        others: further entries of the teacher's card.
    """

    source: str
    training_flops: int
    head_flops: int
    mlm_loss: float | None
    mlm_accuracy: float | None
    tuning_flops: int = 0
    note: str | None = optional()
    architecture: dict[str, Any] | None = optional()
    pretraining: PretrainingFacts | None = optional()
    teachers: tuple[TeacherFacts, ...] | None = optional()
    others: dict[str, Any] = rest()


@dataclass(frozen=True)
class StoredOutputs:
    """The facts of stored teacher outputs.

    Attributes:
        views: number of mask copies stored.
        sequences: number of the text's sequences.
        flops: FLOPs of the teacher's passes that made the outputs.
        bytes: size on disk.
        bias: mean deviation from the teacher at a position, by measure.
        settings: settings they are stored with.
    """

    views: int
    sequences: int
    flops: int
    bytes: int
    bias: dict[str, float]
    settings: dict[str, Any] = rest()
