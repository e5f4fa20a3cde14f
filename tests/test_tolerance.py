"""Tolerances hold for every order of summation, and for no wrong sum."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from tests.support.tolerance import (
    assert_metrics_equal,
    assert_sums_equal,
    assert_updates_equal,
    rounding,
)

SUMMANDS = 4096
PARTS = 8


def one_after_another(numbers: np.ndarray) -> np.float32:
    return functools.reduce(np.add, numbers, np.float32(0))


def in_lanes(numbers: np.ndarray, lanes: int) -> np.float32:
    """Add up as a vector unit with as many lanes does."""
    return one_after_another(
        np.array([one_after_another(numbers[lane::lanes]) for lane in range(lanes)])
    )


def orders(numbers: np.ndarray) -> list[np.float32]:
    """Add up in many orders: forwards, backwards, by size, in pairs, in lanes."""
    by_size = np.sort(numbers)
    chains = [one_after_another(each) for each in (numbers, numbers[::-1], by_size, by_size[::-1])]
    return [*chains, np.sum(numbers), *(in_lanes(numbers, lanes) for lanes in (2, 4, 8, 16))]


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("summands", [16, 256, SUMMANDS])
def test_each_order_of_summation_is_within_the_tolerance(summands: int, shift: float) -> None:
    numbers = drawn(summands) + np.float32(shift)
    size = float(np.sum(np.abs(numbers), dtype=np.float64))
    # Every order against every other.
    for first, second in itertools.combinations(orders(numbers), 2):
        assert_sums_equal(first, second, summands=summands, size=size)


def test_tolerance_is_no_more_than_a_few_hundred_times_the_rounding_seen() -> None:
    numbers = np.abs(drawn(SUMMANDS))
    sums = [float(each) for each in orders(numbers)]
    # A tolerance that is far too wide would pass, and tell nothing.
    assert rounding(SUMMANDS) * sums[0] < 300 * (max(sums) - min(sums))


@pytest.mark.parametrize("fault", ["scale", "part", "type"])
def test_wrong_sum_is_outside_the_tolerance(fault: str) -> None:
    """The wrong sum is a mean over one too many, has one part dropped of eight, or is added up in
    bfloat16."""
    numbers = np.abs(drawn(SUMMANDS))
    mean = float(np.mean(numbers))
    wrong = {
        "scale": mean * SUMMANDS / (SUMMANDS + 1),
        "part": float(np.sum(numbers[SUMMANDS // PARTS :])) / SUMMANDS,
        "type": mean * (1 + 2.0**-9),
    }
    # The right sum passes, and the wrong one does not.
    assert_metrics_equal({"loss": mean}, {"loss": mean}, summands=SUMMANDS, stages=1)
    with pytest.raises(AssertionError, match="loss"):
        assert_metrics_equal({"loss": wrong[fault]}, {"loss": mean}, summands=SUMMANDS, stages=1)


def divergence(classes: int, distance: float, *, lanes: int) -> tuple[float, float]:
    """Compute KL(p‖q) of two distributions that are as near as `distance`, added up in float32
    lanes and in float64."""
    logits = drawn(classes)
    moved = logits + np.float32(distance) * drawn(classes, seed=1)

    def log_softmax(x: np.ndarray, dtype: type) -> np.ndarray:
        x = x.astype(dtype)
        shifted = x - x.max()
        total = in_lanes(np.exp(shifted), lanes) if dtype is np.float32 else np.sum(np.exp(shifted))
        return shifted - np.log(total)

    # Once as a program adds up, once exactly.
    p = log_softmax(logits, np.float32)
    q = log_softmax(moved, np.float32)
    exact_p = log_softmax(logits, np.float64)
    exact_q = log_softmax(moved, np.float64)
    return float(in_lanes(np.exp(p) * (p - q), lanes)), float(
        np.sum(np.exp(exact_p) * (exact_p - exact_q))
    )


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_divergence_of_near_distributions_is_within_the_tolerance_of_its_parts(lanes: int) -> None:
    classes = 64
    summed, exact = divergence(classes, 1e-3, lanes=lanes)
    parts = {"kl": math.log(classes)}
    # The size of the divergence would be no measure
    assert abs(summed - exact) > rounding(classes) * exact
    assert_metrics_equal({"kl": summed}, {"kl": exact}, summands=classes, stages=1, parts=parts)


def adam(gradients: list[np.ndarray]) -> np.ndarray:
    """Return parameters after Adam's steps from 0, at a learning rate of 1."""
    params = np.zeros_like(gradients[0])
    first = 0.0
    second = 0.0
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        params = params - (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return params


@pytest.mark.parametrize("fault", [None, "part"])
def test_updates_tell_rounding_from_a_dropped_part(fault: str | None) -> None:
    """Entries whose gradient is nothing but rounding move as far as all others, and either way."""
    entries = 2000
    examples = drawn(3, SUMMANDS // PARTS, entries)
    exact = [np.mean(each, axis=0, dtype=np.float64) for each in examples]
    # With the fault an eighth of the examples has no part in the mean.
    count = SUMMANDS // PARTS * (PARTS - 1) // PARTS if fault else SUMMANDS // PARTS
    rounded = [
        functools.reduce(np.add, each[:count]).astype(np.float64) / count for each in examples
    ]
    start = np.zeros(entries)
    if fault is None:
        assert_updates_equal(
            adam(rounded), adam(exact), start, summands=SUMMANDS // PARTS, stages=3
        )
    else:
        with pytest.raises(AssertionError, match="of their norm"):
            assert_updates_equal(
                adam(rounded), adam(exact), start, summands=SUMMANDS // PARTS, stages=3
            )
