"""A function of a batch, applied to any number of rows in batches of one shape, so that it compiles once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

ROWS = 128
"""Rows of a batch."""


def over_rows(
    compute: Callable[[dict[str, NDArray[Any]]], jax.Array], batch: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Applies `compute` to batches of `ROWS` rows and joins the results.

    Args:
        compute: maps arrays `[ROWS, ...]` to an array `[ROWS, ...]`, each row by itself.
        batch: arrays `[N, ...]`, N at least 1. The last batch is filled up with zeros: rows that are all padding.

    Returns:
        `[N, ...]`, on the host.
    """
    count = len(batch["tokens"])
    results = []
    for start in range(0, count, ROWS):
        rows = {name: values[start : start + ROWS] for name, values in batch.items()}
        missing = ROWS - len(rows["tokens"])
        results.append(compute({name: _filled(values, missing) for name, values in rows.items()}))
    return np.concatenate(jax.device_get(results))[:count]


def _filled(values: NDArray[Any], missing: int) -> NDArray[Any]:
    return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1))
