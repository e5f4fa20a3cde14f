"""Batches of a prepared corpus by step number: the loader's whole state is one integer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from kdjax.data.cache import Cache
from kdjax.data.manifest import SPLITS, Manifest
from kdjax.data.masking import mask
from kdjax.data.packing import positions
from kdjax.errors import InputError

Batch = dict[str, np.ndarray]
"""`tokens`, `segments`, `positions` `[B, L]` int32, `valid` `[B, L]` bool; `slots`, `labels` `[B, S]` int32 and
`label_weights` `[B, S]` float32; with a cache its fields, too, each `[B, *shape]`."""

# Threads: reading waits for the disk, the rest holds the interpreter; two overlap the one with the other.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
# A batch with stored outputs can take hundreds of megabytes.
READ_CACHED = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)

VIEW_SEED = 0x6B646A61785F7677
"""The seed of every view's masks: no likely seed of a run."""


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, open for reading.

    Attributes:
        directory: where it is.
        manifest: what it consists of.
    """

    directory: Path
    manifest: Manifest
    _sources: dict[str, grain.sources.ArrayRecordDataSource]

    @staticmethod
    def open(directory: Path) -> Corpus:
        """Opens a prepared corpus; every shard must be there with its size and number of records.

        The bytes are not hashed: that reads the whole corpus, and ArrayRecord checks a hash of each record it reads
        anyway. `verify` does it, and so does `prepare` when it finds a corpus done.

        Raises:
            InputError: no prepared corpus, or a missing or truncated shard.
        """
        manifest = Manifest.read(directory)
        for shard in manifest.shards:
            path = directory / shard.file
            size = path.stat().st_size if path.is_file() else 0
            if size != shard.bytes:
                raise InputError(f"{path}: has {size} bytes, expected {shard.bytes}; prepare the corpus again")
            try:
                reader = ArrayRecordReader(str(path))
                count = reader.num_records()
                reader.close()
            except RuntimeError as e:
                raise InputError(f"{path}: damaged ({e}); prepare the corpus again") from None
            if count != shard.sequences:
                raise InputError(f"{path}: has {count} sequences, expected {shard.sequences}; prepare the corpus again")
        sources = {
            split: grain.sources.ArrayRecordDataSource(
                [str(directory / shard.file) for shard in manifest.shards if shard.split == split]
            )
            for split in SPLITS
        }
        return Corpus(directory, manifest, sources)

    def verify(self) -> None:
        """Hashes every shard.

        Raises:
            InputError: a shard that is not the one prepared.
        """
        for shard in self.manifest.shards:
            if not shard.intact(self.directory):
                raise InputError(
                    f"{self.directory / shard.file}: other bytes than those prepared; prepare the corpus again"
                )

    def sequences(self, split: str) -> int:
        """How many sequences a split has."""
        return self.manifest.sequences[split]

    def read(self, split: str, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and segment numbers of some sequences, each `[len(sequences), L]` int32.

        Raises:
            InputError: a shard is damaged there.
        """
        source = self._sources[split]
        try:
            records = [source[int(sequence)] for sequence in sequences]
        except RuntimeError as e:
            raise InputError(f"{self.directory}: a shard is damaged ({e}); prepare the corpus again") from None
        return self.manifest.record_format.decode(records)

    def batch(
        self, split: str, sequences: np.ndarray, epochs: np.ndarray, *, seed: int, rate: float, slots: int
    ) -> Batch:
        """A batch of these sequences, each masked for its epoch."""
        tokens, segments = self.read(split, sequences)
        manifest = self.manifest
        masked = [
            mask(
                tokens[row],
                segments[row],
                seed=seed,
                sequence=int(sequence),
                epoch=int(epoch),
                rate=rate,
                slots=slots,
                vocab_size=manifest.vocab_size,
                special_ids=manifest.special_ids,
                mask_id=manifest.special["[MASK]"],
            )
            for row, (sequence, epoch) in enumerate(zip(sequences, epochs, strict=True))
        ]
        columns = dict(
            zip(("tokens", "slots", "labels", "label_weights"), map(np.stack, zip(*masked, strict=True)), strict=True)
        )
        return {**columns, "segments": segments, "positions": positions(segments), "valid": segments > 0}

    def viewed(self, split: str, sequences: np.ndarray, views: np.ndarray, *, rate: float, slots: int) -> Batch:
        """A batch of these sequences, each masked for its view: the same masks whoever asks.

        Args:
            split: `train` or `validation`.
            sequences: `[n]`, their numbers.
            views: `[n]`, from 0.
            rate: share of a sequence's tokens that are masked.
            slots: the most that are masked.
        """
        return self.batch(split, sequences, views, seed=VIEW_SEED, rate=rate, slots=slots)


def view_of(epoch: np.ndarray, seed: int, views: int) -> np.ndarray:
    """Which of `views` mask views a run with this seed sees in an epoch.

    Seeds begin with different views, and `views` epochs show each once: the static masks of BERT, whose data were
    duplicated with different masks (Devlin et al. 2019, arXiv 1810.04805; Bui et al. 2024, arXiv 2404.19319).

    Args:
        epoch: any shape.
        seed: of the run.
        views: at least 1.

    Returns:
        Of the epoch's shape, from 0 to `views - 1`.
    """
    return (np.asarray(epoch) + seed % views) % views


class Batches:
    """The batches of a split by step number, without end.

    Each epoch visits every sequence once, in a permutation that is a pure function of (seed, epoch); a batch may
    straddle two epochs. Masks are a pure function of (seed, sequence, epoch); with views, of (sequence, view), where
    `view_of` says which view an epoch sees.
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
        cache: Cache | None = None,
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
            cache: stored arrays that join each batch: those of its sequences under its views. Whether they were made of
                this corpus and these masks is for the caller to check.

        Raises:
            InputError: the split has fewer sequences than a batch, or the cache has not its sequences and views.
        """
        self._corpus, self._split, self._batch = corpus, split, batch
        self._seed, self._rate, self._slots, self._views, self._cache = seed, rate, slots, views, cache
        if self.sequences < batch:
            raise InputError(
                f"{corpus.directory}: {self.sequences} {split} sequences are too small to fill a batch of {batch}, "
                "expected more text or a smaller batch"
            )
        if cache is not None:
            self._check(cache)
        order = grain.MapDataset.range(self.sequences).shuffle(seed=_order_seed(seed)).repeat()
        self._batches = order.batch(batch, drop_remainder=True).map_with_index(self._read)

    @property
    def sequences(self) -> int:
        """How many sequences there are before they repeat."""
        return self._corpus.sequences(self._split)

    def __getitem__(self, step: int) -> Batch:
        return self._batches[step]  # type: ignore[no-any-return]

    def iterate(self, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """The batches of steps `start` to `stop - 1` with their steps, read ahead in the background."""
        options = READ_OPTIONS if self._cache is None else READ_CACHED
        ahead = iter(self._batches[start:stop].to_iter_dataset(options))
        try:
            yield from zip(range(start, stop), ahead, strict=True)
        finally:
            ahead.close()

    def _read(self, step: int, sequences: np.ndarray) -> Batch:
        epochs = (step * self._batch + np.arange(self._batch)) // self.sequences
        corpus, split, rate, slots = self._corpus, self._split, self._rate, self._slots
        if not self._views:
            return corpus.batch(split, sequences, epochs, seed=self._seed, rate=rate, slots=slots)
        views = view_of(epochs, self._seed, self._views)
        batch = corpus.viewed(split, sequences, views, rate=rate, slots=slots)
        return batch if self._cache is None else {**batch, **self._cache.read(sequences, views)}

    def _check(self, cache: Cache) -> None:
        stored = cache.manifest
        if not self._views:
            raise InputError(
                f"{cache.directory}: stored outputs belong to mask views, found data.views 0, expected at least 1"
            )
        if stored.sequences != self.sequences or stored.views < self._views:
            raise InputError(
                f"{cache.directory}: holds {stored.views} views of {stored.sequences} sequences, expected "
                f"{self._views} of the {self.sequences} {self._split} sequences of {self._corpus.directory}"
            )


def fixed_batches(
    corpus: Corpus, split: str, *, batch: int, limit: int, seed: int, rate: float, slots: int
) -> list[Batch]:
    """Sequences of a split in order with fixed masks, for evaluation.

    At most `limit` sequences: when there are more, evenly spaced ones, since documents and so sequences come in the
    order of the source, often by subject.

    Args:
        corpus: a prepared corpus.
        split: `train` or `validation`.
        batch: rows of a batch. The last one is filled up with rows of padding whose `label_weights` are 0.
        limit: the most sequences.
        seed: of the masks.
        rate: share of a sequence's tokens that are masked.
        slots: the most that are masked.
    """
    available = corpus.sequences(split)
    count = min(limit, available)
    chosen = np.arange(count) * available // count
    batches = []
    for start in range(0, count, batch):
        sequences = chosen[start : start + batch]
        made = corpus.batch(split, sequences, np.zeros(len(sequences), int), seed=seed, rate=rate, slots=slots)
        batches.append(_filled(made, batch, corpus.manifest.special["[PAD]"]))
    return batches


def _filled(batch: Batch, rows: int, pad: int) -> Batch:
    missing = rows - len(batch["tokens"])
    filled = {name: np.pad(values, ((0, missing), (0, 0))) for name, values in batch.items()}
    filled["tokens"][rows - missing :] = pad
    filled["positions"] = positions(filled["segments"])
    return filled


def _order_seed(seed: int) -> int:
    # Grain shuffles epoch e with its seed + e: seeds 0 and 1 would share all but one epoch's order.
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
