"""FLOPs of fine-tuning, by the reference form and the FLOP counter that prices training steps.

B rows of a batch, L tokens.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.budget.price import check_agreement, count_program_flops
from kdjax.config import FinetuneConfig, ModelConfig, Pooling
from kdjax.evaluation.finetuning.step import (
    StepKey,
    abstract_batch,
    abstract_state,
    make_forward,
    make_step,
)
from kdjax.evaluation.finetuning.trial import one_device
from kdjax.evaluation.finetuning.work import TaskBatchShape, Work
from kdjax.parallel.unsharded import UNSHARDED

REFERENCE_DROPOUT = "rbg"
"""JAX PRNG implementation of dropout, counted as no FLOPs, as in `kdjax.training.phase_price`."""
POINTS = (8, 16, 24)
"""Lengths that are counted; all others follow from them."""


@dataclass(frozen=True)
class Polynomial:
    """FLOPs of a batch: `once + B (row + token L + pair L^2)`.

    Each part of a transformer is of one of these kinds: the update of the parameters, and work for
    each row, each token, or each pair of tokens. So four counts give all others.

    Attributes:
        once: FLOPs of a batch, whatever its size.
        row: FLOPs of a row.
        token: FLOPs of a token.
        pair: FLOPs of a pair of tokens of a row.
    """

    once: Fraction
    row: Fraction
    token: Fraction
    pair: Fraction

    def at(self, rows: int, length: int) -> int:
        """Compute the FLOPs of one batch, rounded to a whole number.

        Args:
            rows: rows of the batch.
            length: tokens of each row, padding included.
        """
        return round(self.once + rows * (self.row + self.token * length + self.pair * length**2))

    def total(self, batches: Counter[TaskBatchShape]) -> int:
        """Return the FLOPs of all batches, all lanes of them."""
        total = 0
        for shape, count in batches.items():
            total += count * shape.lanes * self.at(shape.rows, shape.length)
        return total


@dataclass(frozen=True)
class TaskFlops:
    """FLOPs of a training step and of a scoring batch of a model.

    A head's outputs are counted as two, whatever the task: they are a millionth of a row's FLOPs.

    Attributes:
        step: forward and backward pass, and update.
        forward: forward pass.
    """

    step: Polynomial
    forward: Polynomial

    def total(self, work: Work) -> int:
        """Return the FLOPs of all steps and scoring batches."""
        return self.step.total(work.steps) + self.forward.total(work.passes)


def task_flops(model: ModelConfig, settings: FinetuneConfig) -> TaskFlops:
    """Count a model's FLOPs of fine-tuning from shapes alone.

    Args:
        model: configuration of the encoder.
        settings: settings of fine-tuning.

    Raises:
        FlopCountError: XLA and the independent count disagree.
    """
    step = _step_flops(model, settings.pool, bool(settings.clip), settings.weight_decay)
    return TaskFlops(step, _forward_flops(model, settings.pool))


def probe_flops(model: ModelConfig) -> Polynomial:
    """Count the FLOPs of the frozen forward pass, all tokens of the last layer included.

    Args:
        model: configuration of the model.

    Raises:
        FlopCountError: XLA and the independent count disagree.
    """
    return _forward_flops(model, "mean")


@functools.cache
def _step_flops(model: ModelConfig, pool: Pooling, clips: bool, weight_decay: float) -> Polynomial:
    """Count the FLOPs of a training step, once for all settings of the same price."""
    step_key = _step_key(model, pool, clips, weight_decay)
    state = abstract_state(step_key)
    learning_rate = jax.ShapeDtypeStruct((), jnp.float32)

    def step(rows: int, length: int) -> int:
        program = make_step(step_key, REFERENCE_DROPOUT, UNSHARDED)
        count = count_program_flops(
            program, state, abstract_batch(step_key, rows, length), learning_rate
        )
        return check_agreement(count, "a step of fine-tuning")

    return _fitted(step)


@functools.cache
def _forward_flops(model: ModelConfig, pool: Pooling) -> Polynomial:
    """Count the FLOPs of a forward pass, which no setting of the optimiser changes."""
    step_key = _step_key(model, pool)
    params = abstract_state(step_key).params

    def forward(rows: int, length: int) -> int:
        task_forward = make_forward(step_key, UNSHARDED)

        def program(params: Any, batch: Any) -> jax.Array:
            return task_forward(params, batch, None)

        count = count_program_flops(program, params, abstract_batch(step_key, rows, length))
        return check_agreement(count, "fine-tuning's forward pass")

    return _fitted(forward)


def _step_key(
    model: ModelConfig, pool: Pooling, clips: bool = False, weight_decay: float = 0.0
) -> StepKey:
    """Return what a step of the price is compiled for."""
    return StepKey(
        model=model,
        outputs=2,
        regression=False,
        pool=pool,
        weight_decay=weight_decay,
        eps=1e-6,
        clip=1.0 if clips else 0.0,
        dtype="float32",
        layout=one_device(),
    )


def _fitted(count: Any) -> Polynomial:
    """Return the polynomial through the counts of one row at three lengths, and of two rows."""
    longest = max(POINTS)
    one_row = {length: Fraction(count(1, length)) for length in POINTS}
    second_row = count(2, longest) - one_row[longest]

    # Divided differences over equal distances
    first, second, third = POINTS
    distance = second - first
    pair = (one_row[third] - 2 * one_row[second] + one_row[first]) / (2 * distance**2)
    token = (one_row[second] - one_row[first]) / distance - pair * (first + second)
    once = one_row[longest] - second_row
    row = second_row - token * longest - pair * longest**2
    return Polynomial(once, row, token, pair)
