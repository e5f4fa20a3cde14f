"""Rows of like length together: buckets of few lengths, and a function of rows applied to all of
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from kdjax.data.tasks.task import Split

LADDER = (*range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32))
"""Lengths of buckets up to 256 tokens; beyond, multiples of `LADDER_STEP`. A bucket's rows are
padded by at most 7 tokens where they are short, by a quarter where they are long."""
LADDER_STEP = 64
SHARE = 0.1
"""A bucket with a smaller share of the rows joins the next longer one: at most ten lengths, each of
which is a program to compile."""


@dataclass(frozen=True)
class Bucket:
    """Rows that are padded to one length.

    Attributes:
        length: tokens of its arrays' rows, L.
        rows: numbers of its rows, ascending.
    """

    length: int
    rows: NDArray[np.intp]


def buckets_of(lengths: NDArray[np.int64], longest: int, fewest: int = 1) -> tuple[Bucket, ...]:
    """Sort rows into buckets of like length; which row is where follows from the lengths alone.

    Args:
        lengths: tokens of each row, `[N]`, none above `longest`.
        longest: largest length that the model takes.
        fewest: a bucket with fewer rows joins the next longer one, too.

    Returns:
        The buckets, shortest first; together they have every row once.
    """
    # Each row's length, rounded up to the ladder; the model's longest is the last rung.
    rungs = [*LADDER, *range(256, int(max(lengths, default=0)) + LADDER_STEP, LADDER_STEP)]
    rung_of_row = np.searchsorted(rungs, lengths)
    fewest = max(fewest, int(np.ceil(SHARE * len(lengths))))

    buckets: list[Bucket] = []
    waiting = np.empty(0, np.intp)
    last = rung_of_row.max(initial=-1)
    for rung in np.unique(rung_of_row):
        # Rows of a bucket that is too small wait for the next one; the last takes all.
        waiting = np.union1d(waiting, np.flatnonzero(rung_of_row == rung))
        if len(waiting) >= fewest or rung == last:
            buckets.append(Bucket(min(rungs[rung], longest), waiting))
            waiting = np.empty(0, np.intp)
    return tuple(buckets)


def over_rows(
    compute: Callable[[dict[str, NDArray[np.generic]]], jax.Array],
    split: Split,
    longest: int,
    *,
    rows: NDArray[np.intp] | None = None,
    batch_parts: int = 1,
) -> NDArray[Any]:
    """Apply `compute` to batches of rows of like length, with little padding, and join the results.

    Args:
        compute: maps arrays `[B, L]` to an array `[B, ...]`, each row by itself; padding must not
            matter to it.
        split: rows, at least 1.
        longest: largest length that the model takes.
        rows: numbers of N of the rows; None: all of them.
        batch_parts: a batch has a multiple of so many rows, to be split over devices.

    Returns:
        `[N, ...]`, on the host, in the order of `rows`.
    """
    rows = np.arange(len(split)) if rows is None else rows
    order = []
    results = []
    for bucket in buckets_of(split.lengths[rows], longest):
        # As many rows as fill a batch of each device.
        size = max(1, tokens_per_batch() // bucket.length) * batch_parts
        for start in range(0, len(bucket.rows), size):
            chosen = bucket.rows[start : start + size]
            # The last batch of a length is filled up with empty rows, to have the same shape.
            padded = np.pad(rows[chosen], (0, size - len(chosen)), constant_values=-1)
            results.append((compute(split.batch(padded, bucket.length)), len(chosen)))
            order.append(chosen)
    joined = np.concatenate([values[:count] for values, count in jax.device_get(results)])
    return joined[np.argsort(np.concatenate(order))]


def tokens_per_batch() -> int:
    """Return the tokens of a batch of a device.

    On a CPU so few that a small encoder's activations stay in its cache (half the time); elsewhere
    enough to fill the device.
    """
    return 2048 if jax.default_backend() == "cpu" else 32768
