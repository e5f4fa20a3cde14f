"""Batches of a prepared corpus by how many sequences were seen before: the loader's whole state is
one integer."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import grain
import numpy as np

from kdjax.data.corpus import Corpus, HostBatch
from kdjax.data.mask_rate import MaskRate
from kdjax.data.masking import MaskSettings
from kdjax.data.prepare.packing import position_ids
from kdjax.errors import InputError, counted

BatchRows = slice | np.ndarray
"""Which rows of a batch."""

# Threads: reading waits for the disk, the rest holds the interpreter; two overlap the one with the
# other.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
# A batch with stored outputs can take hundreds of megabytes.
READ_CACHED = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


def view_of(epoch: np.ndarray, seed: int, mask_copies: int) -> np.ndarray:
    """Return the mask view of each sequence that a run with this seed sees in an epoch.

    A sequence has `mask_copies` views: copies with masks of their own. Seeds begin with different
    views, and so many epochs show each once: the static masks of BERT, whose data were duplicated
    with different masks (Devlin et al. 2019, arXiv 1810.04805; Bui et al. 2024, arXiv 2404.19319).

    Args:
        epoch: epochs from 0, of any shape.
        seed: seed of the run.
        mask_copies: number of views, at least 1.

    Returns:
        Views from 0 to `mask_copies - 1`, of the epoch's shape.
    """
    return (np.asarray(epoch) + seed % mask_copies) % mask_copies


class CacheSizes(Protocol):
    """Number of sequences that stored arrays belong to, and of mask views of each."""

    @property
    def sequences(self) -> int:
        """Return the number of sequences."""

    @property
    def views(self) -> int:
        """Return the number of mask views of each sequence."""


class StoredArrays(Protocol):
    """Arrays of masked sequences by sequence and view, such as stored teacher outputs."""

    @property
    def directory(self) -> Path:
        """Return the directory of the arrays."""

    @property
    def manifest(self) -> CacheSizes:
        """Return the numbers of sequences and views."""

    def read(self, sequences: np.ndarray, views: np.ndarray) -> Mapping[str, np.ndarray]:
        """Read the arrays of some sequences, each under its view."""


class Batches:
    """The batches of a split, without end.

    Each epoch visits every sequence once, in a permutation that is a pure function of (seed,
    epoch); a batch may straddle two epochs. Masks are a pure function of (seed, sequence, epoch);
    with mask copies, of (sequence, view), where `view_of` says which view an epoch sees.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str = "train",
        *,
        batch_size: int,
        seed: int,
        mask_settings: MaskSettings,
        mask_copies: int = 0,
        mask_rate: MaskRate | None = None,
        cache: StoredArrays | None = None,
    ):
        """Open a stream of batches.

        Args:
            corpus: prepared corpus to read from.
            split: `train` or `validation`.
            batch_size: sequences of a batch.
            seed: seed of the order and the masks.
            mask_settings: how many tokens are masked, which, and what takes their place.
            mask_copies: mask views of a sequence; 0: new masks in every epoch.
            mask_rate: masking rate that changes over a run, in place of that of `mask_settings`;
                not with stored arrays, which belong to masks of one rate.
            cache: stored arrays that join each batch: those of its sequences under its views.
                Whether they were made of this corpus and these masks is for the caller to check.

        Raises:
            InputError: the split has fewer sequences than a batch, or the cache has other sequences
                or fewer views, or comes with a masking rate that changes.
        """
        self._corpus = corpus
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._mask_settings = mask_settings
        self._mask_copies = mask_copies
        self._mask_rate = mask_rate
        self._cache = cache
        if self.sequences < batch_size:
            raise InputError(
                f"{corpus.directory}: {counted(self.sequences, f'{split} sequence')} cannot fill a "
                f"batch of {batch_size:,}, expected more text or a smaller batch"
            )
        if cache is not None:
            self._check(cache)
        shuffled = grain.MapDataset.range(self.sequences).shuffle(seed=_order_seed(seed))
        self._order = shuffled.repeat()

    @property
    def sequences(self) -> int:
        """Return the number of sequences before they repeat."""
        return self._corpus.sequences(self._split)

    def __getitem__(self, number: int) -> HostBatch:
        """Return the batch of this number, where all before it have as many sequences."""
        return self._from(number * self._batch_size, slice(None))[0]  # type: ignore[no-any-return]

    def iterate(self, seen: int, rows: BatchRows = slice(None)) -> Iterator[tuple[int, HostBatch]]:
        """Yield the batches that follow on `seen` sequences, without end.

        Each comes with the number of sequences seen before it. They are read ahead in the
        background.

        Args:
            seen: sequences that the run took before, in batches of any size.
            rows: the rows of each batch that are read.
        """
        options = READ_OPTIONS if self._cache is None else READ_CACHED
        ahead = iter(self._from(seen, rows).to_iter_dataset(options))
        try:
            for number, batch in enumerate(ahead):
                yield seen + number * self._batch_size, batch
        finally:
            ahead.close()

    def _from(self, seen: int, rows: BatchRows) -> grain.MapDataset:
        batches = self._order[seen:].batch(self._batch_size, drop_remainder=True)
        return batches.map_with_index(functools.partial(self._read, seen, rows))

    def _read(self, seen: int, rows: BatchRows, number: int, sequences: np.ndarray) -> HostBatch:
        """Read the batch of a number: the sequences that Grain has chosen, masked."""
        sequences = sequences[rows]
        seen_before = seen + number * self._batch_size + np.arange(self._batch_size)[rows]
        epochs = seen_before // self.sequences
        corpus = self._corpus
        settings = self._mask_settings
        rates = self._mask_rate.at_sequences(seen_before) if self._mask_rate is not None else None
        if not self._mask_copies:
            return corpus.batch(
                self._split,
                sequences,
                epochs,
                seed=self._seed,
                mask_settings=settings,
                rates=rates,
            )
        views = view_of(epochs, self._seed, self._mask_copies)
        batch = corpus.viewed(self._split, sequences, views, mask_settings=settings, rates=rates)
        if self._cache is not None:
            batch.update(self._cache.read(sequences, views))
        return batch

    def _check(self, cache: StoredArrays) -> None:
        """Raise an InputError unless stored arrays are of these sequences and views."""
        stored = cache.manifest
        if self._mask_rate is not None:
            raise InputError(
                f"{cache.directory}: stored outputs belong to masks of one rate, found one that "
                "changes, expected no data.mlm_probability_start"
            )
        if not self._mask_copies:
            raise InputError(
                f"{cache.directory}: stored outputs belong to mask views, found data.mask_copies "
                "0, expected at least 1"
            )
        if stored.sequences != self.sequences or stored.views < self._mask_copies:
            raise InputError(
                f"{cache.directory}: holds {stored.views} views of {stored.sequences} sequences, "
                f"expected {self._mask_copies} of the {self.sequences} {self._split} sequences of "
                f"{self._corpus.directory}"
            )


def fixed_batches(
    corpus: Corpus,
    split: str,
    *,
    batch_size: int,
    limit: int,
    seed: int,
    mask_settings: MaskSettings,
    excluding: int = 0,
) -> list[HostBatch]:
    """Read sequences of a split in order with fixed masks, for evaluation.

    Where there are more than `limit`, evenly spaced ones are read, since documents and so sequences
    come in the order of the source, often by subject.

    Args:
        corpus: prepared corpus to read from.
        split: `train` or `validation`.
        batch_size: rows of a batch. The last one is filled up with rows of padding whose
            `label_weights` are 0.
        limit: the most sequences that are read.
        seed: seed of the masks.
        mask_settings: how many tokens are masked, which, and what takes their place.
        excluding: limit of another call, whose sequences are left out; 0: none are.
    """
    return masked_batches(
        corpus,
        split,
        evenly_spaced(corpus.sequences(split), limit, excluding),
        batch_size=batch_size,
        seed=seed,
        mask_settings=mask_settings,
    )


def masked_batches(
    corpus: Corpus,
    split: str,
    chosen: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    mask_settings: MaskSettings,
) -> list[HostBatch]:
    """Read some sequences of a split in the order given, with fixed masks.

    Args:
        corpus: prepared corpus to read from.
        split: `train` or `validation`.
        chosen: `[n]`, numbers of the sequences.
        batch_size: rows of a batch. The last one is filled up with rows of padding whose
            `label_weights` are 0.
        seed: seed of the masks.
        mask_settings: how many tokens are masked, which, and what takes their place.
    """
    batches = []
    for start in range(0, len(chosen), batch_size):
        sequences = chosen[start : start + batch_size]
        batch = corpus.batch(
            split,
            sequences,
            np.zeros(len(sequences), int),
            seed=seed,
            mask_settings=mask_settings,
        )
        batches.append(_pad_rows(batch, batch_size, corpus.manifest.special.pad))
    return batches


def evenly_spaced(available: int, limit: int, excluding: int = 0) -> np.ndarray:
    """Choose at most `limit` numbers below `available`, ascending and evenly spaced.

    None is one of those that the limit `excluding` gives.

    Args:
        available: numbers to choose from: 0 to `available - 1`.
        limit: how many are chosen at most.
        excluding: a limit; the numbers that it would choose are left out.
    """
    numbers = np.arange(available)
    if excluding:
        numbers = np.setdiff1d(numbers, evenly_spaced(available, excluding))
    count = min(limit, len(numbers))
    return numbers[np.arange(count) * len(numbers) // max(count, 1)]


def _pad_rows(batch: HostBatch, rows: int, pad: int) -> HostBatch:
    """Fill a batch up with rows of padding."""
    missing = rows - len(batch["tokens"])
    filled = {name: np.pad(values, ((0, missing), (0, 0))) for name, values in batch.items()}
    filled["tokens"][rows - missing :] = pad
    filled["positions"] = position_ids(filled["segments"])
    return filled


def _order_seed(seed: int) -> int:
    # Grain shuffles epoch e with its seed + e: seeds 0 and 1 would share all but one epoch's order.
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
