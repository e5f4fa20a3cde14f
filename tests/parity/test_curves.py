"""Training by kdjax and by transformers' BERT with PyTorch's AdamW: equal losses at every step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from benchmarks import curves
from benchmarks.cases import OPTIMIZER, Case, start
from benchmarks.torch_curve import torch_curve
from kdjax.models import abstract_params
from kdjax.training.phase import BatchShape
from tests.golden.arms import random_like
from tests.support.tolerance import UNITS

STEPS = 20
SHAPE = BatchShape(4, 16, 3)
ALLOWED = 10.0
"""Differences from PyTorch, at most, in units of those that one rounding of the weights makes."""


def case_of(arm: str) -> Case:
    """Return an arm with a student of 2 layers of width 64."""
    return curves.case_of(arm, "2x64", SHAPE)


@functools.cache
def inputs(arm: str) -> tuple[Any, Any, tuple[dict[str, np.ndarray], ...]]:
    """Return the student's and the teacher's parameters, and a batch for each step.

    The teacher's are so wide that its attention and logits are far from even.
    """
    pair = case_of(arm).pair
    teacher = random_like(abstract_params(pair.teacher), 1)
    batches = tuple(curves.markov_batch(SHAPE, seed) for seed in range(STEPS))
    return start(pair.student, 0), teacher, batches


@functools.cache
def ours(arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return kdjax's losses `[STEPS]`, and by how much rounding alone may move each of them.

    That is measured: once more from weights that are moved by one unit in their last place.
    """
    params, teacher, batches = inputs(arm)
    program = curves.compiled(case_of(arm))
    losses = np.asarray(curves.kdjax_curve(program, params, teacher, batches)[0])
    rounded = np.asarray(curves.kdjax_curve(program, curves.moved(params), teacher, batches)[0])
    # What has grown does not shrink again; where nothing has, a loss has its own rounding.
    grown = np.maximum.accumulate(np.abs(rounded - losses))
    return losses, ALLOWED * np.maximum(grown, UNITS["float32"] * losses)


def theirs(arm: str, **changes: float) -> np.ndarray:
    """Return PyTorch's losses.

    Args:
        arm: the arm.
        changes: settings of AdamW that are not kdjax's.
    """
    settings = dataclasses.replace(OPTIMIZER, **changes)
    rates = curves.rates_of(STEPS)
    return np.asarray(torch_curve(case_of(arm), *inputs(arm), rates, settings))


@pytest.mark.parametrize("arm", curves.ARMS)
def test_losses_of_twenty_steps_equal_pytorch(arm: str) -> None:
    losses, tolerance = ours(arm)
    differences = np.abs(theirs(arm) - losses)
    assert np.all(differences <= tolerance), (differences / tolerance).max()
    # The tolerance is tight: far below a thousandth of the loss.
    assert np.all(tolerance < 1e-4 * losses)


@pytest.mark.parametrize("arm", curves.ARMS)
def test_losses_differ_where_adam_has_another_beta(arm: str) -> None:
    losses, tolerance = ours(arm)
    differences = np.abs(theirs(arm, b2=0.9) - losses)
    assert differences.max() > 3 * tolerance.max()


def test_markov_batch_masks_words_and_never_padding() -> None:
    batch = curves.markov_batch(SHAPE, 0)
    at_slots = np.take_along_axis(batch["tokens"], batch["slots"], axis=1)
    assert np.all(at_slots == curves.MASK)
    assert np.all(np.take_along_axis(batch["valid"], batch["slots"], axis=1))
    assert np.all(batch["labels"] >= curves.FIRST_WORD)
    assert not np.any(batch["tokens"][~batch["valid"]])
