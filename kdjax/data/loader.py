"""Batches of a prepared corpus by step number: the loader's whole state is one integer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from kdjax.data.manifest import SPLITS, Manifest
from kdjax.data.masking import mask
from kdjax.data.packing import positions
from kdjax.errors import InputError

Batch = dict[str, np.ndarray]
"""`tokens`, `segments`, `positions` `[B, L]` int32, `valid` `[B, L]` bool; `slots`, `labels` `[B, S]` int32 and
`label_weights` `[B, S]` float32."""

# Threads: reading waits for the disk, the rest holds the interpreter; two overlap the one with the other.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


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


class Batches:
    """The batches of a split by step number, without end.

    Each epoch visits every sequence once, in a permutation that is a pure function of (seed, epoch); a batch may
    straddle two epochs. Masks are a pure function of (seed, sequence, epoch).
    """

    def __init__(self, corpus: Corpus, split: str = "train", *, batch: int, seed: int, rate: float, slots: int):
        """Opens a stream of batches.

        Args:
            corpus: a prepared corpus.
            split: `train` or `validation`.
            batch: sequences of a batch.
            seed: of the order and the masks.
            rate: share of a sequence's tokens that are masked.
            slots: the most that are masked.

        Raises:
            InputError: the split has fewer sequences than a batch.
        """
        self._corpus, self._split, self._batch = corpus, split, batch
        self._seed, self._rate, self._slots = seed, rate, slots
        if self.sequences < batch:
            raise InputError(
                f"{corpus.directory}: {self.sequences} {split} sequences are too small to fill a batch of {batch}, "
                "expected more text or a smaller batch"
            )
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
        ahead = iter(self._batches[start:stop].to_iter_dataset(READ_OPTIONS))
        try:
            yield from zip(range(start, stop), ahead, strict=True)
        finally:
            ahead.close()

    def _read(self, step: int, sequences: np.ndarray) -> Batch:
        epochs = (step * self._batch + np.arange(self._batch)) // self.sequences
        return self._corpus.batch(self._split, sequences, epochs, seed=self._seed, rate=self._rate, slots=self._slots)


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
