"""A prepared corpus, open for reading: its sequences, and batches of any of them, masked."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import grain
import numpy as np

from kdjax.config import DataConfig
from kdjax.data.aligned_words import hide_words
from kdjax.data.manifest import SPLITS, Manifest
from kdjax.data.masking import MaskedSequence, MaskRule, MaskSettings, mask
from kdjax.data.prepare.aligned_text import AlignedRows, segments_of_words
from kdjax.data.prepare.packing import position_ids
from kdjax.data.shards import check_shard, damaged_error
from kdjax.data.subset import Subset, take_sequences
from kdjax.errors import InputError
from kdjax.storage.files import digest
from kdjax.tokenizers.word_boundaries import WordBoundaries

HostBatch = dict[str, np.ndarray]
"""`tokens`, `segments`, `positions` `[B, L]` int32, `valid` `[B, L]` bool; `slots`, `labels` `[B,
S]` int32 and `label_weights` `[B, S]` float32; with a cache its fields, too, each `[B, *shape]`.

Where a teacher has tokens of its own, also `words` and `word_segments` `[B, L]` int32, and of the
teacher `teacher.tokens`, `teacher.segments`, `teacher.positions` and `teacher.words` `[B, L_t]`
int32 (`kdjax.models.features.Batch`)."""

VIEW_SEED = 0x6B646A61785F7677
"""The seed of every view's masks: no likely seed of a run."""

_REMEDY = "prepare the corpus again"


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus, or a subset of one, open for reading.

    Attributes:
        directory: directory of the corpus.
        manifest: description of all its files.
        subset: part of the training split that is read; None: all of it.
    """

    directory: Path
    manifest: Manifest
    _sources: dict[str, grain.sources.ArrayRecordDataSource]
    subset: Subset | None = None

    @staticmethod
    def open(directory: Path) -> Corpus:
        """Open a prepared corpus; every shard must be there with its size and number of records.

        The bytes are not hashed: that reads the whole corpus, and ArrayRecord checks a hash of each
        record it reads anyway. `verify` does it, and so does `prepare` when it finds a corpus done.

        Args:
            directory: directory of the corpus.

        Raises:
            InputError: no prepared corpus, or a missing or truncated shard.
        """
        manifest = Manifest.read(directory)
        files: dict[str, list[str]] = {split: [] for split in SPLITS}
        for shard in manifest.shards:
            check_shard(directory, shard, _REMEDY)
            files[shard.split].append(str(directory / shard.file))
        # A held-out text has no training split.
        sources = {
            split: grain.sources.ArrayRecordDataSource(paths)
            for split, paths in files.items()
            if manifest.sequences[split]
        }
        return Corpus(directory, manifest, sources)

    def verify(self) -> None:
        """Hash every shard.

        Raises:
            InputError: a shard is not the one prepared.
        """
        for shard in self.manifest.shards:
            if not shard.intact(self.directory):
                raise InputError(
                    f"{self.directory / shard.file}: other bytes than those prepared; {_REMEDY}"
                )

    def limited(self, unique_tokens: float, seed: int) -> Corpus:
        """Limit the training split to a seeded subset: whole sequences in a random order.

        Under one seed a smaller subset is the start of a larger one. The validation split is the
        same. A sequence has the masks in every subset that it has in the whole corpus.

        Args:
            unique_tokens: the most tokens that the subset holds; [CLS] and [SEP] are counted,
                padding is not.
            seed: seed of the subset.

        Raises:
            InputError: the training split has fewer tokens, the first sequence has more, or a shard
                is damaged.
            ValueError: the corpus is limited already.
        """
        if self.subset is not None:
            raise ValueError(f"{self.directory}: is limited already, expected the whole corpus")
        # Written so that NaN and infinity are refused, too.
        available = self.tokens("train")
        if not unique_tokens < available + 1:
            raise InputError(
                f"{self.directory}: has {available:,} training tokens, expected at least "
                f"data.unique_tokens, {unique_tokens:,.0f}; {unique_tokens - available:,.0f} are "
                "missing"
            )
        # Whole sequences only: the first one may be longer than all that is asked for.
        subset = take_sequences(self.sequences("train"), unique_tokens, seed, self._training_tokens)
        if not subset.tokens:
            raise InputError(
                f"data.unique_tokens is {unique_tokens:g}, expected at least the tokens of a "
                f"sequence: up to {self.manifest.length} in {self.directory}"
            )
        return replace(self, subset=subset)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of what training reads: the manifest's, or with a subset one of both.

        Corpora of equal digests have equal sequences in the same order.
        """
        if self.subset is None:
            return self.manifest.digest
        identity = {"subset_seed": self.subset.seed, "sequences": len(self.subset.numbers)}
        return digest({"corpus": self.manifest.digest, **identity})

    def sequences(self, split: str) -> int:
        """Return the number of sequences of a split, or of the subset of it."""
        if self.subset is None or split != "train":
            return self.manifest.sequences[split]
        return len(self.subset.numbers)

    def tokens(self, split: str) -> int:
        """Count the tokens of a split or of the subset of it, [CLS] and [SEP] too, padding not."""
        if self.subset is None or split != "train":
            return self.manifest.tokens[split]
        return self.subset.tokens

    @functools.cached_property
    def word_boundaries(self) -> WordBoundaries:
        """Return the tokenizer's entries that begin words, and those that end them.

        Raises:
            InputError: the corpus does not say.
        """
        stored = self.manifest.word_boundaries
        if stored:
            return WordBoundaries.from_json(stored)
        if stored is None:
            reason = "was prepared by an earlier version, which did not look where words begin"
        else:
            reason = "has a tokenizer whose entries do not say where words begin"
        raise InputError(
            f"{self.directory}: {reason}, expected data.masking.unit 'token', or a corpus prepared "
            "anew with a WordPiece, byte-level BPE or Unigram tokenizer"
        )

    def missing_tokens(self, sequences: int) -> int:
        """Estimate how many tokens a budget lacks if none may be seen twice; 0: there are enough.

        The sequences that are missing are taken to be as full as those that are there.

        Args:
            sequences: training sequences that the budget reads: its steps times the batch size.
        """
        available = self.sequences("train")
        missing = Fraction((sequences - available) * self.tokens("train"), available)
        return max(0, math.ceil(missing))

    def read(self, split: str, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read token ids and segment numbers of some sequences, each `[len(sequences), L]` int32.

        Args:
            split: `train` or `validation`.
            sequences: numbers of sequences within the split, in any order.

        Raises:
            InputError: a shard is damaged there.
        """
        records = self._records(split, sequences)
        record_format = self.manifest.record_format
        # A teacher's own tokens come behind the student's.
        return record_format.decode([record[: record_format.size] for record in records])

    def _read_aligned(self, split: str, sequences: np.ndarray) -> AlignedRows | None:
        """Read some sequences as both models have them; None where the teacher has no own tokens.

        Raises:
            InputError: a shard is damaged there.
        """
        aligned_format = self.manifest.aligned_format
        if aligned_format is None:
            return None
        return aligned_format.decode(self._records(split, sequences))

    def _records(self, split: str, sequences: np.ndarray) -> list[bytes]:
        """Read the records of some sequences.

        Raises:
            InputError: a shard is damaged there.
        """
        source = self._sources[split]
        records = []
        for number in self._numbers(split, sequences):
            try:
                records.append(source[int(number)])
            except RuntimeError as e:
                raise damaged_error(self._shard_of(split, int(number)), e, _REMEDY) from None
        return records

    def batch(
        self,
        split: str,
        sequences: np.ndarray,
        epochs: np.ndarray,
        *,
        seed: int,
        mask_settings: MaskSettings,
        rates: np.ndarray | None = None,
    ) -> HostBatch:
        """Read a batch of sequences, each masked for its epoch.

        Args:
            split: `train` or `validation`.
            sequences: `[n]`, numbers of the sequences.
            epochs: `[n]`, number of times that each was seen before.
            seed: seed of the masks.
            mask_settings: how many tokens are masked, which, and what takes their place.
            rates: `[n]`, share of each sequence's tokens that are masked, in place of
                `mask_settings.mlm_probability`; None: that of all.

        Raises:
            InputError: a shard is damaged there.
        """
        aligned = self._read_aligned(split, sequences)
        if aligned is None:
            tokens, segments = self.read(split, sequences)
        else:
            tokens = aligned.tokens
            segments = aligned.segments
        # A sequence's masks follow from its number in the whole split, so that they are the same in
        # every subset.
        numbers = self._numbers(split, sequences)
        if rates is None:
            rates = np.full(len(numbers), mask_settings.mlm_probability)
        # The sequences of a step have one rate, so there are few rules.
        rules = {rate: self._mask_rule(mask_settings, rate) for rate in set(rates.tolist())}
        masked = []
        for row, number in enumerate(numbers):
            masked.append(
                mask(
                    tokens[row],
                    segments[row],
                    rules[float(rates[row])],
                    seed=seed,
                    sequence=int(number),
                    epoch=int(epochs[row]),
                )
            )
        # Each array of a masked sequence is a row of the batch's array of that name.
        stacked = MaskedSequence(*(np.stack(rows) for rows in zip(*masked, strict=True)))
        batch = {
            **stacked._asdict(),
            "segments": segments,
            "positions": position_ids(segments),
            "valid": segments > 0,
        }
        if aligned is not None:
            batch |= self._for_teacher(aligned, hidden=stacked.tokens != tokens)
        return batch

    def _mask_rule(self, settings: MaskSettings, rate: float) -> MaskRule:
        """Return the rule by which sequences are masked at a rate."""
        boundaries = self.word_boundaries if settings.masking.unit != "token" else None
        return MaskRule(
            replace(settings, mlm_probability=rate),
            vocab_size=self.manifest.vocab_size,
            special_ids=self.manifest.special_ids,
            mask_id=self.manifest.special.mask,
            boundaries=boundaries,
        )

    def _for_teacher(self, rows: AlignedRows, hidden: np.ndarray) -> HostBatch:
        """Return the arrays of a batch that a teacher with tokens of its own adds.

        Args:
            rows: the batch's sequences as both models have them.
            hidden: `[B, L]` bool: where the student sees another token than the text's.
        """
        teacher = self.manifest.teacher
        if teacher is None:
            raise ValueError("the corpus has no tokens of a teacher's own, expected some")
        seen = hide_words(
            hidden, rows.words, rows.teacher_tokens, rows.teacher_words, teacher.special.mask
        )
        return {
            "words": rows.words,
            "word_segments": segments_of_words(rows.words, rows.segments),
            "teacher.tokens": seen,
            "teacher.segments": rows.teacher_segments,
            "teacher.positions": position_ids(rows.teacher_segments),
            "teacher.words": rows.teacher_words,
        }

    def viewed(
        self,
        split: str,
        sequences: np.ndarray,
        views: np.ndarray,
        *,
        mask_settings: MaskSettings,
        rates: np.ndarray | None = None,
    ) -> HostBatch:
        """Read a batch of sequences, each masked for its view.

        A view has the same masks for every run and for the teacher's stored outputs.

        Args:
            split: `train` or `validation`.
            sequences: `[n]`, numbers of the sequences.
            views: `[n]`, number of each sequence's mask view, from 0.
            mask_settings: how many tokens are masked, which, and what takes their place.
            rates: `[n]`, share of each sequence's tokens that are masked, in place of
                `mask_settings.mlm_probability`; None: that of all.

        Raises:
            InputError: a shard is damaged there.
        """
        return self.batch(
            split,
            sequences,
            views,
            seed=VIEW_SEED,
            mask_settings=mask_settings,
            rates=rates,
        )

    def _shard_of(self, split: str, number: int) -> Path:
        """Return the file that has the whole split's sequence of this number."""
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        ends = np.cumsum([shard.sequences for shard in shards])
        return self.directory / shards[int(np.searchsorted(ends, number, side="right"))].file

    def _numbers(self, split: str, sequences: np.ndarray) -> np.ndarray:
        """Return the sequences' numbers in the whole split."""
        if self.subset is None or split != "train":
            return sequences
        numbers: np.ndarray = self.subset.numbers[sequences]
        return numbers

    def _training_tokens(self, sequences: np.ndarray) -> np.ndarray:
        """Return the number of tokens of each sequence, padding not counted."""
        _, segments = self.read("train", sequences)
        counts: np.ndarray = (segments > 0).sum(axis=1)
        return counts


def apply_regime(config: DataConfig, corpus: Corpus) -> Corpus:
    """Return the corpus as its regime has it: in the limited regime, a subset.

    Args:
        config: settings of the text, its regime among them.
        corpus: the whole corpus.

    Raises:
        InputError: the corpus has fewer tokens than the subset shall have.
    """
    if config.regime == "limited":
        return corpus.limited(config.unique_tokens, config.subset_seed)
    return corpus
