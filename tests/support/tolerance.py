"""How far two results may differ that were added up in another order: the one way of the suite to
compare them.

Floating-point addition is not associative. Another mesh, batch split, vector width or number of
threads adds the same numbers up in another order, and rounds them another way. The roundings of n
additions have either sign, so that with a probability of at least 1 - 2 exp(-λ²/2) a sum is off by
no more than λ √n u Σ|x|, u half the distance from 1 to the next number (Higham and Mary, 2019, "A
new approach to probabilistic rounding error analysis", theorem 2.4).

What decides is Σ|x|, the size of what is summed, and not the size of the sum: a divergence of two
distributions that are nearly equal is a small difference of large sums. So a tolerance is asked for
with the number of summands and their size, and no test has a number of its own. What is promised
bit for bit (resuming on the same machine, loading) is compared bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

CONFIDENCE = 6.0
"""λ: an order of summation in ten million is off by more."""
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-9}
"""Largest relative error of a rounding to the nearest number."""


def rounding(summands: int, *, stages: int = 1, dtype: str = "float32") -> float:
    """Return by how much two sums of the same numbers may differ, in units of the sum of their
    absolute values.

    Args:
        summands: numbers in the longest sum: tokens for a mean over a batch, the width for a
            matmul.
        stages: sums that follow from one another, each of no more than `summands`; their roundings
            add up to those of one sum that is as many times as long.
        dtype: type that is added up in.
    """
    return 2 * CONFIDENCE * math.sqrt(summands * stages) * UNITS[dtype]


def assert_sums_equal(
    actual: Any,
    expected: Any,
    *,
    summands: int,
    stages: int = 1,
    size: float | None = None,
    dtype: str = "float32",
) -> None:
    """Assert that arrays are the same sums in another order.

    Args:
        actual: a tree of arrays.
        expected: a tree of the same structure.
        summands: numbers in the longest sum.
        stages: sums that follow from one another.
        size: sum of the absolute values of what one entry adds up; by default an array's largest
            absolute value, which fits where the summands do not cancel in all entries alike.
        dtype: type that is added up in.
    """
    share = rounding(summands, stages=stages, dtype=dtype)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        values = np.asarray(a, np.float64)
        other = np.asarray(b, np.float64)
        # The size of what is summed, where it is known; else the largest entry stands for it.
        largest = float(np.max(np.abs(other), initial=0.0)) if size is None else size
        np.testing.assert_allclose(
            values, other, rtol=0, atol=share * largest, err_msg=jax.tree_util.keystr(path)
        )


def assert_metrics_equal(
    actual: Mapping[str, float],
    expected: Mapping[str, float],
    *,
    summands: int,
    stages: int,
    parts: Mapping[str, float] | None = None,
) -> None:
    """Assert that a step's losses and gradient norms are the same sums in another order.

    Args:
        actual: a figure by its name.
        expected: the same figures.
        summands: numbers in the longest sum: tokens of the batch.
        stages: matmuls and sums one after another, over all steps.
        parts: sizes of what a figure is a difference of, where that is more than the figure itself,
            by the figure's name: the logarithm of the number of classes for a divergence between
            distributions. All other figures are sums of numbers of one sign.
    """
    share = rounding(summands, stages=stages)
    assert actual.keys() == expected.keys(), (sorted(actual), sorted(expected))
    off = {}
    for name, wanted in expected.items():
        # A figure that is a difference is held to the size of its parts.
        size = max(abs(wanted), (parts or {}).get(name, 0.0))
        if not abs(actual[name] - wanted) <= share * size:
            off[name] = f"{actual[name]!r}, expected {wanted!r} within {share * size:.2g}"
    assert not off, off


def assert_updates_equal(
    actual: Any, expected: Any, start: Any, *, summands: int, stages: int
) -> None:
    """Assert that an optimizer made the same updates of gradients that were added up in another
    order.

    Adam divides a gradient by its own size, so an entry whose gradient is smaller than its rounding
    error may move either way, as far as all others. With gradients spread about 0 the share of such
    entries is that of the rounding error in a gradient; so the norm of all differences is, relative
    to the norm of all updates, its square root.

    Args:
        actual: parameters after the updates.
        expected: the same parameters after the updates that they are compared with.
        start: parameters before them, of both.
        summands: numbers in the longest sum: tokens of the batch.
        stages: matmuls and sums one after another, over all steps.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    # How far apart the results are, relative to how far the parameters moved.
    share = distance(actual, expected) / distance(expected, start)
    limit = math.sqrt(rounding(summands, stages=stages))
    assert share <= limit, (
        f"updates differ by {share:.2g} of their norm, expected at most {limit:.2g}"
    )


def distance(actual: Any, expected: Any) -> float:
    """Return the Euclidean norm of the difference of two trees of arrays, over all entries."""
    squares = 0.0
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        squares += float(np.sum(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return math.sqrt(squares)
