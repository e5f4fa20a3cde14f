"""A batch taken in parts gives the step of the whole batch, though parts hold unequal numbers of
slots and tokens."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ArmConfig, OptimizerConfig, TermConfig
from kdjax.errors import InputError
from kdjax.parallel.layout import Layout
from kdjax.training.arm import resolve
from kdjax.training.phase import Phase
from kdjax.training.program import Program
from kdjax.training.step import State, accumulate_gradients
from tests.support import tiny
from tests.support.tolerance import assert_metrics_equal, assert_updates_equal

STAGES = 40
"""Matmuls and sums one after another in two steps of two models, forward and backward."""
TERMS = ("mlm", "attention_mse", "hidden_mse", "relation")


@functools.cache
def phase() -> Phase:
    """Make one objective with terms of every kind of normaliser: slots, positions, pairs, rows;
    with dropout."""
    config = ArmConfig(terms=tuple(TermConfig(name) for name in TERMS))
    student = dataclasses.replace(tiny.SHALLOW_STUDENT, dropout=0.1, attention_dropout=0.2)
    (only,) = resolve(
        "all", config, student, tiny.SHALLOW_TEACHER, OptimizerConfig(learning_rate=1e-2)
    ).phases
    return only


@functools.cache
def compiled(devices: int, grad_accum_steps: int) -> Program:
    return Program(
        phase(),
        tiny.SHAPE,
        Layout.from_config(devices=jax.devices()[:devices]),
        grad_accum_steps=grad_accum_steps,
    )


def started(program: Program) -> State:
    return program.start(tiny.spread(tiny.params(tiny.SHALLOW_STUDENT, 0)), seed=1)


@functools.cache
def stepped(
    devices: int, grad_accum_steps: int, dropped: int | None = None
) -> tuple[Any, dict[str, float]]:
    """Return parameters and metrics after two steps, with the sequences of one part empty where one
    is dropped."""
    program = compiled(devices, grad_accum_steps)
    teacher = program.place_teacher(tiny.spread(tiny.params(tiny.SHALLOW_TEACHER, 9)))
    state = started(program)
    metrics: dict[str, Any] = {}
    for step in range(2):
        batch = tiny.batch(step)
        batch["label_weights"][::2] = 0  # every part but one holds no slot in half of its sequences
        # A part that is lost leaves its sequences without tokens.
        if dropped is not None:
            for name in ("segments", "valid", "label_weights"):
                batch[name][dropped::grad_accum_steps] = 0
        state, metrics = program.step(
            state, teacher, program.place(batch), tiny.schedule_inputs(phase(), step, 5)
        )
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("devices", "grad_accum_steps"), [(1, 8), pytest.param(2, 2, marks=pytest.mark.exhaustive)]
)
def test_microbatches_give_step_of_whole_batch(devices: int, grad_accum_steps: int) -> None:
    check_same(stepped(devices, grad_accum_steps))


def check_same(actual: tuple[Any, dict[str, float]]) -> None:
    """Assert that two steps did what they do on the whole batch, but for the order of sums."""
    params, metrics = actual
    # The whole batch on one device is what all others are held to.
    whole, expected = stepped(1, 1)
    sums = {"summands": tiny.SHAPE.batch_size * tiny.SHAPE.seq_len, "stages": STAGES}
    # Attention and relations are distributions over the positions of a sequence.
    parts = dict.fromkeys(("loss/relation", "relation"), math.log(tiny.SHAPE.seq_len))
    assert_metrics_equal(metrics, expected, parts=parts, **sums)
    start = jax.device_get(started(compiled(1, 1)).params)
    assert_updates_equal(params, whole, start, **sums)


def test_tolerance_tells_a_dropped_part_and_a_wrong_scale_from_rounding() -> None:
    # Losing one part of eight, and forgetting it in the mean, are both told from rounding.
    params, metrics = stepped(1, 8, dropped=3)
    _, whole = stepped(1, 1)
    with pytest.raises(AssertionError, match="relation"):
        check_same((params, metrics))
    with pytest.raises(AssertionError, match="of their norm"):
        check_same((params, whole))
    # Each figure by itself notices a scale of 8/7.
    for name, value in whole.items():
        with pytest.raises(AssertionError, match=name):
            check_same((params, {**whole, name: value * 8 / 7}))


def test_accumulate_gradients_gives_each_part_the_seeds_of_its_sequences() -> None:
    # The sum is of each sequence's token times its own seed, in whichever part it lies.
    def grad_fn(trainable: Any, batch: Any, seeds: Any, shares: Any = None) -> Any:
        total = trainable["scale"] * jnp.sum(batch["tokens"][:, :1] * seeds)
        return (total, {}), {"scale": total}

    batch = tiny.batch(0)
    # Two seeds a sequence, as dropout has them.
    seeds = jax.random.randint(jax.random.key(3), (len(batch["tokens"]), 2), 0, 9)
    result = accumulate_gradients(
        grad_fn, {"scale": jnp.int32(3)}, phase().objective, 2, batch, seeds
    )
    (value, _), gradients = result
    assert float(value) == float(gradients["scale"]) == 3 * np.sum(batch["tokens"][:, :1] * seeds)


def test_microbatches_of_whole_batch_term_are_refused() -> None:
    config = ArmConfig(terms=(TermConfig("pearson", variant="bui2024"),))
    (only,) = resolve("p", config, tiny.STUDENT, tiny.TEACHER, OptimizerConfig()).phases
    with pytest.raises(
        InputError,
        match=r"arms.p: pearson: looks at a batch as a whole, expected train.grad_accum_steps to",
    ):
        only.check_splits()
    # Terms with a normalizer pass the same check.
    phase().check_splits()


def test_batch_that_microbatches_do_not_divide_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"multiple of the 2 parts the mesh splits it into times train\.grad_accum_steps, 3",
    ):
        Program(
            phase(), tiny.SHAPE, Layout.from_config(devices=jax.devices()[:2]), grad_accum_steps=3
        )
