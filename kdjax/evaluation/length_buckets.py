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

STEP = 8
"""Lengths of buckets are multiples of so many tokens, or the model's longest."""
MOST = 8
"""The most buckets: each is a program to compile."""
BATCHES = 4
"""A further bucket needs so many batches of all rows: for less it is not worth compiling."""
ACCELERATOR_TOKENS = 32768
"""Tokens of a batch of a TPU or GPU where rows are only scored: enough to fill it."""


@dataclass(frozen=True)
class Bucket:
    """Rows that are padded to one length.

    Attributes:
        length: tokens of its arrays' rows, L.
        rows: numbers of its rows, ascending.
    """

    length: int
    rows: NDArray[np.intp]


def buckets_of(
    lengths: NDArray[np.int64], longest: int, batch_rows: Callable[[int], int]
) -> tuple[Bucket, ...]:
    """Sort rows into buckets of like length, so that batches have the fewest tokens.

    Padding of rows counts, and so does what fills up the last batch of a bucket. Which row is where
    follows from the lengths alone.

    Args:
        lengths: tokens of each row, `[N]`, none above `longest`; N at least 1.
        longest: largest length that the model takes.
        batch_rows: length of a bucket -> rows of a batch.

    Returns:
        At most `MOST` buckets, shortest first; together they have every row once.
    """
    # The lengths that a bucket may have: those that some row needs.
    needed = np.minimum(-(-lengths // STEP) * STEP, longest)
    candidates, candidate_of_row = np.unique(needed, return_inverse=True)
    batches = -(-len(lengths) // batch_rows(int(candidates[-1])))
    most = min(MOST, max(1, batches // BATCHES), len(candidates))

    buckets = []
    first = 0
    for last in _ends(candidates, np.bincount(candidate_of_row), batch_rows, most):
        in_bucket = (candidate_of_row >= first) & (candidate_of_row <= last)
        buckets.append(Bucket(int(candidates[last]), np.flatnonzero(in_bucket)))
        first = last + 1
    return tuple(buckets)


def _ends(
    candidates: NDArray[np.int64],
    counts: NDArray[np.intp],
    batch_rows: Callable[[int], int],
    most: int,
) -> list[int]:
    """Choose at most `most` candidates as the lengths of buckets, by dynamic programming.

    Args:
        candidates: lengths that buckets may have, ascending.
        counts: rows that need each of them and no more.
        batch_rows: length of a bucket -> rows of a batch.
        most: the most buckets.
    """
    # `tokens[i, j]`: those of a bucket of candidate j's length, with the rows of i + 1 to j; i from
    # -1, which is the last place.
    sizes = np.array([batch_rows(int(length)) for length in candidates])
    below = np.append(np.cumsum(counts), 0)
    rows = below[None, :-1] - below[:, None]
    tokens = np.where(rows > 0, -(-rows // sizes) * sizes * candidates, np.inf)

    # `fewest[j]`: tokens of the best buckets up to candidate j, with one more bucket each time.
    fewest = tokens[-1]
    before = [np.full(len(candidates), -1)]
    totals = [fewest[-1]]
    for _ in range(1, most):
        extended = fewest[:, None] + tokens[:-1]
        before.append(extended.argmin(axis=0))
        fewest = extended.min(axis=0)
        totals.append(fewest[-1])

    # Back from the longest candidate, with the number of buckets that is best.
    ends = []
    end = len(candidates) - 1
    for number in range(int(np.argmin(totals)), -1, -1):
        ends.append(end)
        end = int(before[number][end])
    return ends[::-1]


def compute_over_rows(
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

    def batch_rows(length: int) -> int:
        """Return as many rows as fill a batch of each device."""
        return max(1, tokens_per_batch() // length) * batch_parts

    order = []
    results = []
    for bucket in buckets_of(split.lengths[rows], longest, batch_rows):
        size = batch_rows(bucket.length)
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
    if jax.default_backend() == "cpu":
        return 2048
    return ACCELERATOR_TOKENS
