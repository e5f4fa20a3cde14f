"""Batches of a prepared corpus by how many sequences were seen before: the loader's whole state is
one integer."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import grain
import numpy as np

from kdjax.data.corpus import Batch, Corpus
from kdjax.data.prepare.packing import positions
from kdjax.errors import InputError

Rows = slice | np.ndarray
"""Which rows of a batch."""

# Threads: reading waits for the disk, the rest holds the interpreter; two overlap the one with the
# other.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
# A batch with stored outputs can take hundreds of megabytes.
READ_CACHED = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


def view_of(epoch: np.ndarray, seed: int, views: int) -> np.ndarray:
    """Which of `views` mask views a run with this seed sees in an epoch.

    Seeds begin with different views, and `views` epochs show each once: the static masks of BERT,
    whose data were duplicated with different masks (Devlin et al. 2019, arXiv 1810.04805; Bui et
    al. 2024, arXiv 2404.19319).

    Args:
        epoch: any shape.
        seed: of the run.
        views: at least 1.

    Returns:
        Of the epoch's shape, from 0 to `views - 1`.
    """
    return (np.asarray(epoch) + seed % views) % views


class CacheSizes(Protocol):
    """How many sequences stored arrays belong to, and how many mask views of each."""

    @property
    def sequences(self) -> int:
        """Sequences."""

    @property
    def views(self) -> int:
        """Mask views of each."""


class StoredArrays(Protocol):
    """Arrays that belong to masked sequences, read by sequence and view
    (`kdjax.teacher_cache.store.Cache`)."""

    @property
    def directory(self) -> Path:
        """Where they lie."""

    @property
    def manifest(self) -> CacheSizes:
        """What there is."""

    def read(self, sequences: np.ndarray, views: np.ndarray) -> Mapping[str, np.ndarray]:
        """Read the arrays of some sequences, each under its view."""


class Batches:
    """The batches of a split, without end.

    Each epoch visits every sequence once, in a permutation that is a pure function of (seed,
    epoch); a batch may straddle two epochs. Masks are a pure function of (seed, sequence, epoch);
    with views, of (sequence, view), where `view_of` says which view an epoch sees.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str = "train",
        *,
        batch: int,
        seed: int,
        rate: float,
        slots: int,
        views: int = 0,
        cache: StoredArrays | None = None,
    ):
        """Opens a stream of batches.

        Args:
            corpus: a prepared corpus.
            split: `train` or `validation`.
            batch: sequences of a batch.
            seed: of the order and the masks.
            rate: share of a sequence's tokens that are masked.
            slots: the most that are masked.
            views: mask views of a sequence; 0: new masks in every epoch.
            cache: stored arrays that join each batch: those of its sequences under its views.
                Whether they were made of this corpus and these masks is for the caller to check.

        Raises:
            InputError: the split has fewer sequences than a batch, or the cache has not its
                sequences and views.
        """
        self._corpus = corpus
        self._split = split
        self._batch = batch
        self._seed = seed
        self._rate = rate
        self._slots = slots
        self._views = views
        self._cache = cache
        if self.sequences < batch:
            raise InputError(
                f"{corpus.directory}: {self.sequences} {split} sequences are too small to fill a "
                f"batch of {batch}, "
                "expected more text or a smaller batch"
            )
        if cache is not None:
            self._check(cache)
        self._order = (
            grain.MapDataset.range(self.sequences).shuffle(seed=_order_seed(seed)).repeat()
        )

    @property
    def sequences(self) -> int:
        """How many sequences there are before they repeat."""
        return self._corpus.sequences(self._split)

    def __getitem__(self, number: int) -> Batch:
        """The batch of this number, when all before it had as many sequences."""
        return self._from(number * self._batch, slice(None))[0]  # type: ignore[no-any-return]

    def iterate(self, seen: int, rows: Rows = slice(None)) -> Iterator[tuple[int, Batch]]:
        """The batches that follow on `seen` sequences, each with how many were seen before it,
        without end.

        They are read ahead in the background.

        Args:
            seen: sequences that the run took before, in batches of any size.
            rows: of each batch; only their sequences are read.
        """
        options = READ_OPTIONS if self._cache is None else READ_CACHED
        ahead = iter(self._from(seen, rows).to_iter_dataset(options))
        try:
            for number, batch in enumerate(ahead):
                yield seen + number * self._batch, batch
        finally:
            ahead.close()

    def _from(self, seen: int, rows: Rows) -> grain.MapDataset:
        batches = self._order[seen:].batch(self._batch, drop_remainder=True)
        return batches.map_with_index(functools.partial(self._read, seen, rows))

    def _read(self, seen: int, rows: Rows, number: int, sequences: np.ndarray) -> Batch:
        sequences = sequences[rows]
        epochs = (seen + number * self._batch + np.arange(self._batch)[rows]) // self.sequences
        corpus = self._corpus
        split = self._split
        rate = self._rate
        slots = self._slots
        if not self._views:
            return corpus.batch(split, sequences, epochs, seed=self._seed, rate=rate, slots=slots)
        views = view_of(epochs, self._seed, self._views)
        batch = corpus.viewed(split, sequences, views, rate=rate, slots=slots)
        return batch if self._cache is None else {**batch, **self._cache.read(sequences, views)}

    def _check(self, cache: StoredArrays) -> None:
        stored = cache.manifest
        if not self._views:
            raise InputError(
                f"{cache.directory}: stored outputs belong to mask views, found data.mask_copies "
                "0, "
                "expected at least 1"
            )
        if stored.sequences != self.sequences or stored.views < self._views:
            raise InputError(
                f"{cache.directory}: holds {stored.views} views of {stored.sequences} sequences, "
                "expected "
                f"{self._views} of the {self.sequences} {self._split} sequences of "
                f"{self._corpus.directory}"
            )


def fixed_batches(
    corpus: Corpus,
    split: str,
    *,
    batch: int,
    limit: int,
    seed: int,
    rate: float,
    slots: int,
    besides: int = 0,
) -> list[Batch]:
    """Sequences of a split in order with fixed masks, for evaluation.

    At most `limit` sequences: when there are more, evenly spaced ones, since documents and so
    sequences come in the order of the source, often by subject.

    Args:
        corpus: a prepared corpus.
        split: `train` or `validation`.
        batch: rows of a batch. The last one is filled up with rows of padding whose `label_weights`
            are 0.
        limit: the most sequences.
        seed: of the masks.
        rate: share of a sequence's tokens that are masked.
        slots: the most that are masked.
        besides: the sequences that a call with this limit takes are left out.
    """
    chosen = evenly_spaced(corpus.sequences(split), limit, besides)
    batches = []
    for start in range(0, len(chosen), batch):
        sequences = chosen[start : start + batch]
        made = corpus.batch(
            split, sequences, np.zeros(len(sequences), int), seed=seed, rate=rate, slots=slots
        )
        batches.append(_filled(made, batch, corpus.manifest.special["[PAD]"]))
    return batches


def evenly_spaced(available: int, limit: int, besides: int = 0) -> np.ndarray:
    """At most `limit` numbers below `available`, ascending, and none of those that the limit
    `besides` gives."""
    left = np.arange(available)
    if besides:
        left = np.setdiff1d(left, evenly_spaced(available, besides))
    count = min(limit, len(left))
    return left[np.arange(count) * len(left) // max(count, 1)]


def _filled(batch: Batch, rows: int, pad: int) -> Batch:
    missing = rows - len(batch["tokens"])
    filled = {name: np.pad(values, ((0, missing), (0, 0))) for name, values in batch.items()}
    filled["tokens"][rows - missing :] = pad
    filled["positions"] = positions(filled["segments"])
    return filled


def _order_seed(seed: int) -> int:
    # Grain shuffles epoch e with its seed + e: seeds 0 and 1 would share all but one epoch's order.
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
