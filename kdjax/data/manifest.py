"""What a prepared corpus consists of: `manifest.json` in its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.data.prepare.packing import RecordFormat
from kdjax.data.text.sources import sha256
from kdjax.errors import InputError
from kdjax.files import digest, read_json, write_json

NAME = "manifest.json"
VERSION = 1
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file.

    Attributes:
        file: its path in the corpus's directory.
        split: `train` or `validation`.
        sequences: records in it.
        bytes: its size.
        sha256: of its bytes.
    """

    file: str
    split: str
    sequences: int
    bytes: int
    sha256: str

    def intact(self, directory: Path) -> bool:
        """Whether the file is there with these very bytes."""
        path = directory / self.file
        return path.is_file() and path.stat().st_size == self.bytes and sha256(path) == self.sha256


@dataclass(frozen=True)
class Manifest:
    """A prepared corpus. Counts are per split: `train` and `validation`.

    Attributes:
        version: of this format.
        length: tokens of a sequence.
        vocab_size: the tokenizer's highest id + 1.
        special: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]` -> id.
        special_ids: ids of all special tokens, ascending.
        token_dtype: of a record's token ids.
        segment_dtype: of a record's segment numbers.
        tokenizer_sha256: of tokenizer.json.
        sources: file -> SHA-256, in the order they were read.
        settings: the settings the content depends on, besides the above.
        documents: documents read.
        sequences: sequences they were packed into.
        tokens: tokens that are not padding, [CLS] and [SEP] included.
        text_tokens: tokens of the documents alone: the unique tokens of the regime.
        fill: share of the sequences' places that `tokens` take.
        shards: the files, in the order their sequences are numbered.
        digest: SHA-256 of all of the above but the names and digests of the sources: equal digests,
            equal sequences.
    """

    version: int
    length: int
    vocab_size: int
    special: dict[str, int]
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

    @property
    def record_format(self) -> RecordFormat:
        """How a record is read."""
        return RecordFormat(self.length, self.token_dtype, self.segment_dtype)

    def signed(self) -> Manifest:
        """The same with its digest filled in."""
        content = {
            k: v for k, v in dataclasses.asdict(self).items() if k not in ("sources", "digest")
        }
        return dataclasses.replace(self, digest=digest(content))

    def write(self, directory: Path) -> None:
        """Writes manifest.json, whole or not at all."""
        write_json(directory / NAME, dataclasses.asdict(self))

    @staticmethod
    def read(directory: Path) -> Manifest:
        """Reads a corpus's manifest.

        Raises:
            InputError: no prepared corpus, of another version, or a manifest that was changed.
        """
        path = directory / NAME
        if not path.is_file():
            raise InputError(
                f"{directory}: holds no {NAME}, expected a corpus that kdjax prepare finished"
            )
        values = read_json(path)
        found = values.get("version") if isinstance(values, dict) else None
        if found != VERSION:
            raise InputError(
                f"{path}: is of version {found}, expected {VERSION}; prepare the corpus again"
            )
        try:
            values["shards"] = tuple(Shard(**shard) for shard in values["shards"])
            manifest = Manifest(**{**values, "special_ids": tuple(values["special_ids"])})
        except (KeyError, TypeError) as e:
            raise InputError(
                f"{path}: not a corpus's manifest ({e}), expected the one kdjax prepare wrote"
            ) from None
        if manifest.digest != manifest.signed().digest:
            raise InputError(
                f"{path}: does not match its own digest, expected the manifest as kdjax prepare "
                "wrote it"
            )
        return manifest


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sums per split."""
    sums = dict.fromkeys(SPLITS, 0)
    for count in counts:
        for split in SPLITS:
            sums[split] += count[split]
    return sums
