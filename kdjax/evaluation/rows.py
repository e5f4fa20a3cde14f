"""A function of rows, applied to any number of rows in batches of few shapes, to compile seldom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

TOKENS = 2048
"""Tokens of a batch: so few that a small encoder's activations stay in a CPU's cache (half the
time)."""
LENGTH_STEP = 32
"""Rows are cut to a multiple of this many tokens."""


def over_rows(
    compute: Callable[[dict[str, NDArray[Any]]], jax.Array], batch: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Apply `compute` to batches of rows of like length, with little padding, and join the results.

    Args:
        compute: maps arrays `[B, L]` to an array `[B, ...]`, each row by itself; padding must not
            matter to it.
        batch: arrays `[N, L]`, N at least 1, with `valid` False from a row's first padding on.

    Returns:
        `[N, ...]`, on the host, in the order of the rows.
    """
    # Each row's length, rounded up to a multiple of LENGTH_STEP: every length is a program.
    steps = -(-batch["valid"].sum(axis=1) // LENGTH_STEP)
    lengths = np.minimum(steps * LENGTH_STEP, batch["valid"].shape[1])
    order = []
    results = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        size = max(1, TOKENS // length)
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            # The last batch of a length is filled up with empty rows, to have the same shape.
            missing = [(0, size - len(chosen)), (0, 0)]
            cut = {name: np.pad(values[chosen, :length], missing) for name, values in batch.items()}
            results.append((compute(cut), len(chosen)))
            order.append(chosen)
    joined = np.concatenate([values[:count] for values, count in jax.device_get(results)])
    return joined[np.argsort(np.concatenate(order))]
