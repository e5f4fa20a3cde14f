"""A function of rows, applied to any number of them in batches of few shapes, so that it compiles
few times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

TOKENS = 2048
"""Tokens of a batch: few enough that a small encoder's activations stay in the cache, which halves
a CPU's time."""
STEP = 32
"""Rows are cut to a multiple of this many tokens."""


def over_rows(
    compute: Callable[[dict[str, NDArray[Any]]], jax.Array], batch: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Applies `compute` to rows of like length at a time, without most of their padding, and joins
    the results.

    Args:
        compute: maps arrays `[B, L]` to an array `[B, ...]`, each row by itself; padding must not
            matter to it.
        batch: arrays `[N, L]`, N at least 1, with `valid` False from a row's first padding on.

    Returns:
        `[N, ...]`, on the host, in the order of the rows.
    """
    full = batch["valid"].shape[1]
    lengths = np.minimum(-(-batch["valid"].sum(axis=1) // STEP) * STEP, full)
    places = []
    results = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        size = max(1, TOKENS // length)
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            missing = [(0, size - len(chosen)), (0, 0)]
            cut = {name: np.pad(values[chosen, :length], missing) for name, values in batch.items()}
            results.append((compute(cut), len(chosen)))
            places.append(chosen)
    joined = np.concatenate([values[:count] for values, count in jax.device_get(results)])
    return joined[np.argsort(np.concatenate(places))]
