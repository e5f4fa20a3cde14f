"""Teachers made here: a model pretrained from scratch under its own FLOP budget, with checkpoints
along the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import PhaseSpan, schedule_phases
from kdjax.budget.price import Price
from kdjax.config import ArmConfig, ModelConfig, PretrainingConfig
from kdjax.errors import InputError
from kdjax.objectives.presets import arm_of, objectives_of
from kdjax.training.phase import BatchShape, Phase
from kdjax.training.phase_price import price

SETTING = "teacher.train.budget"
"""What messages call the budget."""


def pretraining_phases(architecture: ModelConfig, config: PretrainingConfig) -> tuple[Phase, ...]:
    """Return one phase for each checkpoint; each ends at that checkpoint's share of the budget.

    All have the same step, masked language modelling, so they share its compiled program and its
    price, and how many checkpoints there are changes no parameter.

    Args:
        architecture: configuration of the teacher to train.
        config: batch, optimiser and checkpoints.
    """
    objective = objectives_of("scratch", arm_of("scratch", ArmConfig()))[0]
    return tuple(
        Phase("teacher", architecture, None, None, objective, config.optimizer, until=share)
        for share in config.checkpoints
    )


def pretraining_price(
    architecture: ModelConfig, config: PretrainingConfig, batch_shape: BatchShape
) -> Price:
    """Count the FLOPs of one step, by part.

    Args:
        architecture: configuration of the teacher.
        config: settings of its training.
        batch_shape: shape of a batch.
    """
    return price(pretraining_phases(architecture, config)[0], batch_shape)


def pretraining_spans(
    config: PretrainingConfig, step_price: Price, batch_shape: BatchShape
) -> tuple[PhaseSpan, ...]:
    """Return the steps between checkpoints, one span for each.

    Args:
        config: budget and checkpoints.
        step_price: price of one step.
        batch_shape: shape of a batch.

    Raises:
        InputError: the budget buys no step before one of the checkpoints.
    """
    phases = [(share, step_price) for share in config.checkpoints]
    return schedule_phases(
        Budget.flops(config.budget), phases, batch_shape.tokens_per_step, setting=SETTING
    )


def steps_at(spans: Sequence[PhaseSpan], checkpoints: Sequence[float], share: float) -> int:
    """Count the steps that a teacher has taken when it is saved at a share of its budget.

    Args:
        spans: phases of the training, as they lie in its budget.
        checkpoints: shares of the budget at which the teacher is saved, ascending.
        share: one of these shares.

    Raises:
        InputError: no checkpoint is saved there.
    """
    if share not in checkpoints:
        raise InputError(
            f"teacher.at is {share}, expected one of teacher.train.checkpoints, {list(checkpoints)}"
        )
    return spans[list(checkpoints).index(share)].stop


def pretraining_flops(
    architecture: ModelConfig, config: PretrainingConfig, batch_shape: BatchShape, share: float
) -> int:
    """Compute the FLOPs of a teacher when it is saved at a share of its budget.

    They are its steps times their price.

    Args:
        architecture: configuration of the teacher.
        config: settings of its training.
        batch_shape: shape of a batch.
        share: share of the budget.

    Raises:
        InputError: the budget buys no step before one of the checkpoints, or one is asked for that
            is not saved.
    """
    step_price = pretraining_price(architecture, config, batch_shape)
    spans = pretraining_spans(config, step_price, batch_shape)
    return steps_at(spans, config.checkpoints, share) * step_price.total


def stream_seed(seed: int) -> int:
    """Compute the 31-bit seed of a teacher's start, order, masks and dropout, by SHA-256.

    It is not the teacher's own number, so that the teacher of seed 0 and the student of seed 0
    share neither the order of the text nor its masks.
    """
    hashed = hashlib.sha256(f"teacher {seed}".encode()).digest()
    return int.from_bytes(hashed[:4], "big") >> 1
