"""A prepared corpus, open for reading: its sequences, and batches of any of them, masked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from kdjax.config import DataConfig
from kdjax.data.manifest import SPLITS, Manifest
from kdjax.data.masking import mask
from kdjax.data.prepare.packing import positions
from kdjax.data.subset import Subset, take
from kdjax.errors import InputError
from kdjax.files import digest

Batch = dict[str, np.ndarray]
"""`tokens`, `segments`, `positions` `[B, L]` int32, `valid` `[B, L]` bool; `slots`, `labels` `[B,
S]` int32 and `label_weights` `[B, S]` float32; with a cache its fields, too, each `[B, *shape]`."""

VIEW_SEED = 0x6B646A61785F7677
"""The seed of every view's masks: no likely seed of a run."""


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, or a subset of one, open for reading.

    Attributes:
        directory: where it is.
        manifest: what the whole of it consists of.
        subset: what the training split is limited to; None: all of it.
    """

    directory: Path
    manifest: Manifest
    _sources: dict[str, grain.sources.ArrayRecordDataSource]
    subset: Subset | None = None

    @staticmethod
    def open(directory: Path) -> Corpus:
        """Opens a prepared corpus; every shard must be there with its size and number of records.

        The bytes are not hashed: that reads the whole corpus, and ArrayRecord checks a hash of each
        record it reads anyway. `verify` does it, and so does `prepare` when it finds a corpus done.

        Raises:
            InputError: no prepared corpus, or a missing or truncated shard.
        """
        manifest = Manifest.read(directory)
        for shard in manifest.shards:
            path = directory / shard.file
            size = path.stat().st_size if path.is_file() else 0
            if size != shard.bytes:
                raise InputError(
                    f"{path}: has {size} bytes, expected {shard.bytes}; prepare the corpus again"
                )
            try:
                reader = ArrayRecordReader(str(path))
                count = reader.num_records()
                reader.close()
            except RuntimeError as e:
                raise InputError(f"{path}: damaged ({e}); prepare the corpus again") from None
            if count != shard.sequences:
                raise InputError(
                    f"{path}: has {count} sequences, expected {shard.sequences}; prepare the "
                    "corpus again"
                )
        sources = {
            split: grain.sources.ArrayRecordDataSource(
                [str(directory / shard.file) for shard in manifest.shards if shard.split == split]
            )
            for split in SPLITS
            if manifest.sequences[split]
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
                    f"{self.directory / shard.file}: other bytes than those prepared; prepare the "
                    "corpus again"
                )

    def limited(self, unique_tokens: float, seed: int) -> Corpus:
        """The same corpus with a seeded subset of its training split: whole sequences in a random
        order.

        Under one seed a smaller subset is the start of a larger one. The validation split is the
        same. A sequence has the masks in every subset that it has in the whole corpus.

        Args:
            unique_tokens: the most tokens the subset holds; padding not counted, [CLS] and [SEP]
                counted.
            seed: of the subset.

        Raises:
            InputError: the training split has fewer tokens, the first sequence has more, or a shard
                is damaged.
            ValueError: the corpus is limited already.
        """
        if self.subset is not None:
            raise ValueError(f"{self.directory}: is limited already, expected the whole corpus")
        available = self.tokens("train")
        if not unique_tokens < available + 1:
            raise InputError(
                f"{self.directory}: has {available:,} training tokens, expected at least "
                "data.unique_tokens, "
                f"{unique_tokens:,.0f}; {unique_tokens - available:,.0f} are missing"
            )
        subset = take(self.sequences("train"), unique_tokens, seed, self._training_tokens)
        if not subset.tokens:
            raise InputError(
                f"data.unique_tokens is {unique_tokens:g}, expected at least the tokens of a "
                "sequence: up to "
                f"{self.manifest.length} in {self.directory}"
            )
        return dataclasses.replace(self, subset=subset)

    @property
    def digest(self) -> str:
        """The manifest's digest, or one of that and the subset: equal digests, equal sequences in
        the same order."""
        if self.subset is None:
            return self.manifest.digest
        taken = {"subset_seed": self.subset.seed, "sequences": len(self.subset.numbers)}
        return digest({"corpus": self.manifest.digest, **taken})

    def sequences(self, split: str) -> int:
        """How many sequences a split has, or the subset of it."""
        subset = self._subset(split)
        return self.manifest.sequences[split] if subset is None else len(subset.numbers)

    def tokens(self, split: str) -> int:
        """How many tokens a split has, or the subset of it; padding not counted, [CLS] and [SEP]
        counted."""
        subset = self._subset(split)
        return self.manifest.tokens[split] if subset is None else subset.tokens

    def missing_tokens(self, sequences: int) -> int:
        """How many tokens are missing for so many training sequences without a repeat, if those are
        as full as these.

        Args:
            sequences: what a budget reads: its steps times the batch.

        Returns:
            0 when there are enough.
        """
        available = self.sequences("train")
        return max(0, -(-(sequences - available) * self.tokens("train") // available))

    def read(self, split: str, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and segment numbers of some sequences, each `[len(sequences), L]` int32.

        Raises:
            InputError: a shard is damaged there.
        """
        source = self._sources[split]
        records = []
        for number in self._numbers(split, sequences):
            try:
                records.append(source[int(number)])
            except RuntimeError as e:
                file = self.directory / self._shard_of(split, int(number))
                raise InputError(f"{file}: damaged ({e}); prepare the corpus again") from None
        return self.manifest.record_format.decode(records)

    def batch(
        self,
        split: str,
        sequences: np.ndarray,
        epochs: np.ndarray,
        *,
        seed: int,
        rate: float,
        slots: int,
    ) -> Batch:
        """A batch of these sequences, each masked for its epoch.

        Raises:
            InputError: a shard is damaged there.
        """
        tokens, segments = self.read(split, sequences)
        manifest = self.manifest
        masked = [
            mask(
                tokens[row],
                segments[row],
                seed=seed,
                sequence=int(number),
                epoch=int(epoch),
                rate=rate,
                slots=slots,
                vocab_size=manifest.vocab_size,
                special_ids=manifest.special_ids,
                mask_id=manifest.special["[MASK]"],
            )
            for row, (number, epoch) in enumerate(
                zip(self._numbers(split, sequences), epochs, strict=True)
            )
        ]
        columns = dict(
            zip(
                ("tokens", "slots", "labels", "label_weights"),
                map(np.stack, zip(*masked, strict=True)),
                strict=True,
            )
        )
        return {
            **columns,
            "segments": segments,
            "positions": positions(segments),
            "valid": segments > 0,
        }

    def viewed(
        self, split: str, sequences: np.ndarray, views: np.ndarray, *, rate: float, slots: int
    ) -> Batch:
        """A batch of these sequences, each masked for its view: the same masks whoever asks.

        Args:
            split: `train` or `validation`.
            sequences: `[n]`, their numbers.
            views: `[n]`, from 0.
            rate: share of a sequence's tokens that are masked.
            slots: the most that are masked.
        """
        return self.batch(split, sequences, views, seed=VIEW_SEED, rate=rate, slots=slots)

    def _shard_of(self, split: str, number: int) -> str:
        """The file of the whole split's sequence of this number."""
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        ends = np.cumsum([shard.sequences for shard in shards])
        return shards[int(np.searchsorted(ends, number, side="right"))].file

    def _subset(self, split: str) -> Subset | None:
        return self.subset if split == "train" else None

    def _numbers(self, split: str, sequences: np.ndarray) -> np.ndarray:
        """Their numbers in the whole split."""
        subset = self._subset(split)
        return sequences if subset is None else subset.numbers[sequences]

    def _training_tokens(self, sequences: np.ndarray) -> np.ndarray:
        """Tokens of each, padding not counted."""
        _, segments = self.read("train", sequences)
        counts: np.ndarray = (segments > 0).sum(axis=1)
        return counts


def regime_of(config: DataConfig, corpus: Corpus) -> Corpus:
    """The corpus, or of the limited regime its subset.

    Raises:
        InputError: the corpus has fewer tokens than the subset shall have.
    """
    if config.regime == "limited":
        return corpus.limited(config.unique_tokens, config.subset_seed)
    return corpus
