"""What a prepared corpus consists of: its shards, and `manifest.json` in its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from kdjax.data.prepare.aligned_text import AlignedFormat
from kdjax.data.prepare.packing import RecordFormat
from kdjax.data.text_figures import TextFigures, unknown_warning
from kdjax.errors import InputError, counted
from kdjax.storage.files import digest, read_json, write_json
from kdjax.text.streams import sha256
from kdjax.tokenizers.special_tokens import SpecialTokens

NAME = "manifest.json"
VERSION = 1
SPLITS = ("train", "validation")
EARLIER_NAMES = {
    "pad": "[PAD]",
    "unknown": "[UNK]",
    "start": "[CLS]",
    "end": "[SEP]",
    "mask": "[MASK]",
}
"""Role of a special token -> its name in manifests of earlier versions, which were of BERT's
tokenizers alone. Digests are of these names, so that equal sequences have the digest they had."""


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file of a corpus or a teacher cache.

    Attributes:
        file: path of the shard in the directory.
        split: `train` or `validation`.
        sequences: number of its records.
        bytes: size of the shard.
        sha256: SHA-256 of its bytes, in hex.
    """

    file: str
    split: str
    sequences: int
    bytes: int
    sha256: str

    def size_in(self, directory: Path) -> int:
        """Return the size of the file as it is now; 0 where there is none."""
        path = directory / self.file
        if not path.is_file():
            return 0
        return path.stat().st_size

    def intact(self, directory: Path) -> bool:
        """Return whether the file is there with these very bytes."""
        # The size first: it is quick to ask.
        same_size = self.size_in(directory) == self.bytes
        return same_size and sha256(directory / self.file) == self.sha256


@dataclass(frozen=True)
class SignedManifest:
    """What the manifests of corpora and of teacher caches share: a digest of their own content.

    A subclass has the fields `version` and `digest`.
    """

    UNSIGNED: ClassVar[tuple[str, ...]] = ("digest",)
    """Fields that the digest does not depend on."""

    def signed(self) -> Self:
        """Return the manifest with its digest filled in."""
        # The digest is of the content, not of itself.
        content = self._content()
        for name in self.UNSIGNED:
            del content[name]
        changes: dict[str, Any] = {"digest": digest(content)}
        return dataclasses.replace(self, **changes)

    def _content(self) -> dict[str, Any]:
        """Return all fields as plain values, as they are signed."""
        return dataclasses.asdict(self)

    def write(self, directory: Path) -> None:
        """Write manifest.json, whole or not at all."""
        write_json(directory / NAME, dataclasses.asdict(self))

    @classmethod
    def read_signed(
        cls,
        path: Path,
        from_json: Callable[[dict[str, Any]], Self],
        *,
        version: int,
        kind: str,
        writer: str,
        remedy: str,
    ) -> Self:
        """Read a manifest and check it against its own digest.

        Args:
            path: path of the manifest.
            from_json: function from the file's content to the manifest.
            version: version of the format that the file must have.
            kind: corpus or cache, for messages.
            writer: name of the writer of the file, for messages.
            remedy: advice on another version, for messages.

        Raises:
            InputError: the file is of another version, was changed, or is no such manifest.
        """
        values = read_json(path)
        version_read = values.get("version") if isinstance(values, dict) else None
        if version_read != version:
            raise InputError(f"{path}: is of version {version_read}, expected {version}; {remedy}")
        try:
            manifest = from_json(values)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise InputError(
                f"{path}: not a {kind}'s manifest ({e}), expected the one {writer} wrote"
            ) from None
        # Signed again, an unchanged manifest is the same.
        if manifest != manifest.signed():
            raise InputError(
                f"{path}: does not match its own digest, expected the manifest as {writer} wrote it"
            )
        return manifest


@dataclass(frozen=True)
class TeacherTokens:
    """A corpus's text as a teacher's own tokenizer has it. Counts are per split.

    Attributes:
        length: tokens of a sequence.
        vocab_size: the tokenizer's highest id + 1.
        special: ids of its special tokens, by role.
        token_dtype: type of a record's token ids.
        segment_dtype: type of a record's segment numbers.
        tokenizer_sha256: SHA-256 of its tokenizer.json.
        text_tokens: tokens of the documents alone.
        unknown: [UNK] among them.
        words: aligned words of the documents (`kdjax.data.aligned_words`).
        left_out: aligned words that are longer than a sequence, and so in none.
    """

    length: int
    vocab_size: int
    special: SpecialTokens
    token_dtype: str
    segment_dtype: str
    tokenizer_sha256: str
    text_tokens: dict[str, int]
    unknown: dict[str, int]
    words: dict[str, int]
    left_out: dict[str, int]

    def in_words(self) -> str:
        """Return the counts of the teacher's part of the text as a line has them."""
        return (
            f"{counted(sum(self.text_tokens.values()), 'token')} in sequences of {self.length:,}, "
            f"{counted(sum(self.words.values()), 'aligned word')}, "
            f"{sum(self.left_out.values()):,} left out"
        )

    def warnings(self) -> list[str]:
        """Return a sentence for all that makes the teacher's part of the text doubtful."""
        shares = {}
        for split, tokens in self.text_tokens.items():
            if tokens:
                shares[split] = self.unknown[split] / tokens
        sentences = []
        if warning := unknown_warning(shares):
            sentences.append(f"by data.teacher_tokenizer {warning}")
        left_out = sum(self.left_out.values())
        words = sum(self.words.values()) + left_out
        if left_out:
            sentences.append(
                f"{left_out:,} of {counted(words, 'aligned word')} are longer than a sequence of "
                "the student or the teacher, and are left out"
            )
        return sentences

    @property
    def record_format(self) -> RecordFormat:
        """Return the layout of the teacher's part of a record."""
        return RecordFormat(self.length, self.token_dtype, self.segment_dtype)


@dataclass(frozen=True)
class Manifest(SignedManifest):
    """What a prepared corpus consists of. Counts are per split: `train` and `validation`.

    Attributes:
        version: version of this format.
        length: tokens of a sequence.
        vocab_size: the tokenizer's highest id + 1.
        special: ids of the special tokens, by role.
        special_ids: ids of all special tokens, ascending.
        token_dtype: type of a record's token ids.
        segment_dtype: type of a record's segment numbers.
        tokenizer_sha256: SHA-256 of tokenizer.json.
        sources: file -> SHA-256, in the order they were read.
        settings: the settings that the content depends on, besides the above.
        documents: documents read.
        sequences: sequences that the documents were packed into.
        tokens: tokens that are not padding, [CLS] and [SEP] included.
        text_tokens: tokens of the documents alone: the unique tokens of the regime.
        fill: share of the sequences' positions that `tokens` take; the rest is padding.
        shards: the files, in the order their sequences are numbered.
        digest: SHA-256 of all of the above but the names and digests of the sources: equal digests,
            equal sequences.
        text: figures of the text; None in manifests of earlier versions. They are not in the
            digest, as the sequences do not depend on them.
        word_boundaries: which of the tokenizer's entries begin words, and which end them
            (`WordBoundaries.to_json`); empty where they do not say, None in manifests of earlier
            versions. They follow from the tokenizer, which is in the digest.
        teacher: the same text by a teacher's own tokenizer; None where the teacher reads the
            student's tokens. Only what is there is in the digest.
    """

    UNSIGNED: ClassVar[tuple[str, ...]] = ("sources", "digest", "text", "word_boundaries")

    version: int
    length: int
    vocab_size: int
    special: SpecialTokens
    special_ids: tuple[int, ...]
    token_dtype: str
    segment_dtype: str
    tokenizer_sha256: str
    sources: dict[str, str]
    settings: dict[str, Any]
    documents: dict[str, int]
    sequences: dict[str, int]
    tokens: dict[str, int]
    text_tokens: dict[str, int]
    fill: dict[str, float]
    shards: tuple[Shard, ...]
    digest: str = ""
    text: TextFigures | None = None
    word_boundaries: dict[str, Any] | None = None
    teacher: TeacherTokens | None = None

    @property
    def unknown(self) -> dict[str, float]:
        """Return the share of [UNK] among the text's tokens, by split; empty where not counted."""
        if not self.text:
            return {}
        return self.text.unknown_shares(self.text_tokens)

    def words_in(self, tokens: float) -> int | None:
        """Estimate the number of words in some tokens of the training split.

        Exact for whole passes over the split; within a pass as many as its tokens have on average.

        Args:
            tokens: number of tokens, [CLS] and [SEP] included and padding not.

        Returns:
            Words between white space; None in manifests of earlier versions, which counted none.
        """
        if self.text is None:
            return None
        return round(tokens * self.text.words["train"] / max(1, self.tokens["train"]))

    @property
    def record_format(self) -> RecordFormat:
        """Return the layout of a record's bytes."""
        return RecordFormat(self.length, self.token_dtype, self.segment_dtype)

    @property
    def aligned_format(self) -> AlignedFormat | None:
        """Return the layout of a record that has both models' tokens; None of one that has not."""
        if self.teacher is None:
            return None
        return AlignedFormat(self.record_format, self.teacher.record_format)

    @staticmethod
    def read(directory: Path) -> Manifest:
        """Read a corpus's manifest.

        Args:
            directory: directory of the corpus.

        Raises:
            InputError: no prepared corpus, of another version, or a manifest that was changed.
        """
        path = directory / NAME
        if not path.is_file():
            raise InputError(
                f"{directory}: holds no {NAME}, expected a corpus that kdjax prepare finished"
            )
        return Manifest.read_signed(
            path,
            Manifest._from_json,
            version=VERSION,
            kind="corpus",
            writer="kdjax prepare",
            remedy="prepare the corpus again",
        )

    def _content(self) -> dict[str, Any]:
        """Return all fields as plain values, the special tokens by their earlier names."""
        content = dataclasses.asdict(self)
        special = {}
        for role, index in content["special"].items():
            if index is not None:
                special[EARLIER_NAMES[role]] = index
        # Corpora without it have the digest that they always had.
        if content["teacher"] is None:
            del content["teacher"]
        return {**content, "special": special}

    @staticmethod
    def _from_json(values: dict[str, Any]) -> Manifest:
        shards = tuple(Shard(**shard) for shard in values["shards"])
        special_ids = tuple(values["special_ids"])
        text = values.get("text")
        figures = TextFigures(**text) if text is not None else None
        # By role; in manifests of earlier versions, by BERT's names.
        stored = values["special"]
        roles = {}
        for role, name in EARLIER_NAMES.items():
            roles[role] = stored[role] if role in stored else stored[name]
        special = SpecialTokens(**roles)
        teacher = values.get("teacher")
        if teacher is not None:
            own_special = SpecialTokens(**teacher["special"])
            teacher = TeacherTokens(**{**teacher, "special": own_special})
        changes = {
            "special": special,
            "special_ids": special_ids,
            "shards": shards,
            "text": figures,
            "teacher": teacher,
        }
        return Manifest(**{**values, **changes})


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up counts per split."""
    sums = dict.fromkeys(SPLITS, 0)
    for count in counts:
        for split in SPLITS:
            sums[split] += count[split]
    return sums
