"""An arm between two models, and the price of its step."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.api.text import PreparedText
from kdjax.budget.price import Price
from kdjax.config import ArmConfig, DataConfig, OptimizerConfig, predictions
from kdjax.errors import InputError
from kdjax.models import Model
from kdjax.objectives.logits import same_but_for_padding
from kdjax.training.arm import Arm, resolve
from kdjax.training.phase import BatchShape
from kdjax.training.phase_price import price as phase_price


@dataclass(frozen=True)
class ArmWithModels:
    """An arm, with the student it trains and the teacher it learns from.

    Attributes:
        definition: objective, phases and optimiser.
        student: the student before its first step.
        teacher: the teacher; None where the arm looks at none.
    """

    definition: Arm
    student: Model
    teacher: Model | None


def arm(
    name: str,
    student: Model,
    teacher: Model | None = None,
    *,
    settings: ArmConfig = ArmConfig(),
    optimizer: OptimizerConfig = OptimizerConfig(),
) -> ArmWithModels:
    """Make an arm ready for two models.

    Args:
        name: a named arm (`kdjax arms` lists them), or any name for one that `settings` write out.
        student: the student before its first step.
        teacher: the teacher; may be left out where the arm looks at none.
        settings: terms, phases and what else differs from the named arm. The student is as given:
            settings of `start` and `student` are refused.
        optimizer: the optimiser, its settings and the schedule of the learning rate.

    Raises:
        InputError: an unknown arm, an objective that these two models do not allow, or a missing
            teacher.

    Example:
        >>> arm = kdjax.arm("logit", student, teacher)
        >>> arm.definition.uses_teacher
        True
    """
    if settings.student or settings.start:
        raise InputError(
            f"arm {name!r}: settings of student and start are given, expected none: the student is "
            "the model itself"
        )
    teacher_config = teacher.config if teacher is not None else None
    definition = resolve(name, settings, student.config, teacher_config, optimizer)
    if not definition.uses_teacher:
        teacher = None
    return ArmWithModels(definition, student, teacher)


def check_vocabulary(arm: ArmWithModels, data: PreparedText) -> None:
    """Check that an arm's student has the vocabulary of a text; padding to a power of two is one.

    Raises:
        InputError: the text's tokenizer has another number of entries.
    """
    entries = data.corpus.manifest.vocab_size
    rows = arm.student.config.vocab_size
    if entries > rows or not same_but_for_padding(rows, entries):
        raise InputError(
            f"the student's vocab_size is {rows:,}, expected {entries:,}, the entries of "
            f"{data.tokenizer}; kdjax.models.init takes vocab_size={entries}"
        )


def price(
    arm: ArmWithModels,
    *,
    batch_size: int,
    seq_len: int | None = None,
    max_predictions: int | None = None,
    phase: int = 0,
    data: PreparedText | None = None,
) -> Price:
    """Count the FLOPs of one step, by part; needs no data.

    Args:
        arm: arm whose step is priced, between its two models.
        batch_size: sequences of a step.
        seq_len: tokens of a sequence; None: those of `data`.
        max_predictions: masked positions of a sequence, at most; None: those of `data` where
            `seq_len` is its own, else 15% of the tokens.
        phase: number of the arm's phase, from 0.
        data: text that the arm is to be trained on; None: none is at hand.

    Raises:
        FlopCountError: XLA's count cannot be trusted for this objective.
        InputError: neither `seq_len` nor `data`, or another vocabulary than the text's.

    Example:
        >>> distilled = kdjax.price(arm, batch_size=8, seq_len=12)
        >>> scratch = kdjax.price(kdjax.arm("scratch", student), batch_size=8, seq_len=12)
        >>> scratch.teacher_forward
        0
        >>> distilled.total > scratch.total
        True
    """
    if data is not None:
        check_vocabulary(arm, data)
        if seq_len is None or seq_len == data.settings.seq_len:
            seq_len = data.settings.seq_len
            max_predictions = max_predictions or data.settings.max_predictions
    if seq_len is None:
        raise InputError("seq_len is not given, expected the tokens of a sequence, or data")
    if max_predictions is None:
        max_predictions = predictions(seq_len, DataConfig.mlm_probability)
    batch_shape = BatchShape(batch_size, seq_len, max_predictions)
    return phase_price(arm.definition.phases[phase], batch_shape)
