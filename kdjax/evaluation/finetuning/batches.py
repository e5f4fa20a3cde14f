"""The rows of each step of fine-tuning: batches of rows of like length, every row once an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.data.tasks.task import Split
from kdjax.evaluation.length_buckets import Bucket, buckets_of


@dataclass(frozen=True)
class StepRows:
    """The rows of one step.

    Attributes:
        length: tokens of a row, L, the same for all lanes.
        rows: `[lanes, B]`: numbers of the rows; -1 fills up the last batch of a bucket.
    """

    length: int
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Order:
    """The order of a task's training rows.

    The length of each step's rows is a pure function of (lengths of the rows, epoch), and so the
    same for every seed; the rows are one of (seed, epoch, bucket, lengths).

    Attributes:
        buckets: rows by length.
        batch_size: rows of a step.
    """

    buckets: tuple[Bucket, ...]
    batch_size: int

    @staticmethod
    def from_split(split: Split, batch_size: int, longest: int) -> Order:
        """Sort a split's rows into buckets.

        Args:
            split: training rows.
            batch_size: rows of a step.
            longest: largest length that the model takes.
        """
        buckets = buckets_of(split.lengths, longest, lambda length: batch_size)
        return Order(buckets, batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps of an epoch."""
        return len(self._bucket_of_batch())

    def iterate(self, seeds: Sequence[int], first: int, last: int) -> Iterator[StepRows]:
        """Yield the rows of steps `first` to `last`, the latter excluded, for a lane of each seed.

        Steps count from 0 and go from epoch to epoch without end.

        Args:
            seeds: seed of each lane.
            first: number of the first step, from 0.
            last: number of the step after the last.
        """
        per_epoch = self.steps_per_epoch
        for epoch in range(first // per_epoch, -(-last // per_epoch)):
            start = epoch * per_epoch
            steps = self._epoch(seeds, epoch)
            for number in range(max(first, start), min(last, start + per_epoch)):
                yield steps[number - start]

    def _epoch(self, seeds: Sequence[int], epoch: int) -> list[StepRows]:
        """Return the steps of an epoch."""
        # Each lane's rows of each bucket, in its own order, cut into batches.
        batches = []
        for number, bucket in enumerate(self.buckets):
            lanes = []
            for seed in seeds:
                order = np.random.default_rng([seed, epoch, number]).permutation(bucket.rows)
                missing = -len(order) % self.batch_size
                lanes.append(np.pad(order, (0, missing), constant_values=-1))
            batches.append(np.stack(lanes).reshape(len(seeds), -1, self.batch_size))

        # Buckets take turns in an order that no seed changes.
        turns = np.random.default_rng([epoch]).permutation(self._bucket_of_batch())
        batches_taken = [0] * len(self.buckets)
        steps = []
        for number in turns:
            rows = batches[number][:, batches_taken[number]]
            steps.append(StepRows(self.buckets[number].length, rows))
            batches_taken[number] += 1
        return steps

    def _bucket_of_batch(self) -> NDArray[np.intp]:
        """Return the number of the bucket that each batch of an epoch is from, ascending."""
        counts = [-(-len(bucket.rows) // self.batch_size) for bucket in self.buckets]
        return np.repeat(np.arange(len(counts)), counts)
