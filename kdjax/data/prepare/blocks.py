"""The unit of preparation: documents that are packed together into one shard a split, wherever that
is done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from kdjax.data.manifest import SPLITS, Shard
from kdjax.data.prepare.aligned_text import AlignedFormat, align_documents, pack_aligned
from kdjax.data.prepare.packing import RecordFormat, best_fit, chunks, items_of_bins
from kdjax.data.shards import SHARDS, write_shard
from kdjax.storage.files import write_json
from kdjax.storage.typed_json import read_typed
from kdjax.text.repeats import SplitDocument
from kdjax.tokenizers.text_tokenizer import TextTokenizer

BLOCK_BYTES = 32 * 2**20
"""Text of a block in UTF-8: long documents make blocks of fewer documents, so that a block fits in
memory."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class TeacherText:
    """How a teacher with a vocabulary of its own reads the text.

    Attributes:
        tokenizer: path of its tokenizer.json.
        tokenizer_sha256: SHA-256 of that file.
        length: tokens of a sequence.
    """

    tokenizer: Path
    tokenizer_sha256: str
    length: int


@dataclass(frozen=True)
class BlockSettings:
    """Settings of a block's shards, besides its documents, and their place.

    Attributes:
        directory: directory that the corpus is written to.
        tokenizer: path of a tokenizer.json.
        tokenizer_sha256: SHA-256 of that file.
        length: tokens of a sequence.
        packs: whether a sequence holds pieces of several documents, where they fit.
        teacher: what the teacher reads by; None where it reads the student's tokens.
    """

    directory: Path
    tokenizer: Path
    tokenizer_sha256: str
    length: int
    packs: bool
    teacher: TeacherText | None = None


@dataclass(frozen=True)
class Block:
    """Documents that are packed together, and what that takes. All processes share nothing else."""

    index: int
    documents: list[SplitDocument]
    settings: BlockSettings


@dataclass(frozen=True)
class FinishedBlock:
    """The counts per split of a finished block, and its shards.

    Earlier versions counted no words, characters and [UNK]: those of a block of theirs are empty.
    Its file, `part-00000.json`, is written after the shards, as the proof that they are whole. The
    last four are of a teacher's own tokens (`kdjax.data.manifest.TeacherTokens`), where there are
    such.
    """

    index: int
    documents: dict[str, int]
    tokens: dict[str, int]
    text_tokens: dict[str, int]
    shards: tuple[Shard, ...]
    words: dict[str, int] = field(default_factory=dict)
    characters: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    teacher_tokens: dict[str, int] = field(default_factory=dict)
    teacher_unknown: dict[str, int] = field(default_factory=dict)
    aligned_words: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _PackedSplit:
    """The texts of a split as records.

    Attributes:
        pieces: token ids of each piece, by the student's tokenizer.
        records: records of the sequences that the pieces are packed into.
        teacher_tokens, teacher_unknown, aligned_words, left_out: counts as in `FinishedBlock`; 0
            where the teacher has no tokens of its own.
    """

    pieces: list[np.ndarray]
    records: Iterator[bytes]
    teacher_tokens: int = 0
    teacher_unknown: int = 0
    aligned_words: int = 0
    left_out: int = 0


def cut(
    documents: Iterable[Item], size_of: Callable[[Item], int], max_documents: int
) -> Iterator[list[Item]]:
    """Cut consecutive documents into blocks of at most `BLOCK_BYTES` together.

    Args:
        documents: the documents, or anything that stands for them.
        size_of: bytes of a document.
        max_documents: the most documents of a block.
    """
    block: list[Item] = []
    block_bytes = 0
    for document in documents:
        size = size_of(document)
        if len(block) == max_documents or (block and block_bytes + size > BLOCK_BYTES):
            yield block
            block = []
            block_bytes = 0
        block.append(document)
        block_bytes += size
    if block:
        yield block


def make_block(block: Block) -> FinishedBlock:
    """Tokenise and pack a block and write its shards, then the record that they are whole."""
    settings = block.settings
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for document in block.documents:
        split = "validation" if document.held_out else "train"
        texts[split].append(document.text)

    # Sequences of each split, written to its shard, with the numbers of their tokens
    packed = {split: _packed(settings, texts[split]) for split in SPLITS}
    special = _tokenizer(settings.tokenizer, settings.tokenizer_sha256).special
    tokens = {}
    text_tokens = {}
    unknown = {}
    shards = []
    for split, rows in packed.items():
        text_tokens[split] = sum(map(len, rows.pieces))
        tokens[split] = text_tokens[split] + 2 * len(rows.pieces)
        unknown[split] = sum(map(special.count_unknown, rows.pieces))
        if rows.pieces:
            name = f"{split}-{block.index:05d}"
            shards.append(write_shard(settings.directory, name, split, rows.records))

    # Figures on the text itself
    documents = {}
    words = {}
    characters = {}
    for split in SPLITS:
        documents[split] = len(texts[split])
        words[split] = sum(len(text.split()) for text in texts[split])
        characters[split] = sum(map(len, texts[split]))
    of_teacher = {}
    if settings.teacher is not None:
        # Those of a teacher with tokens of its own
        for name in ("teacher_tokens", "teacher_unknown", "aligned_words", "left_out"):
            of_teacher[name] = {split: getattr(rows, name) for split, rows in packed.items()}

    # The record comes last: where it is, the shards are whole.
    finished_block = FinishedBlock(
        block.index,
        documents,
        tokens,
        text_tokens,
        tuple(shards),
        words=words,
        characters=characters,
        unknown=unknown,
        **of_teacher,
    )
    write_json(_record_path(settings.directory, block.index), dataclasses.asdict(finished_block))
    return finished_block


def _packed(settings: BlockSettings, texts: list[str]) -> _PackedSplit:
    """Tokenise the texts of a split, and pack them into sequences."""
    tokenizer = _tokenizer(settings.tokenizer, settings.tokenizer_sha256)
    record_format = RecordFormat.smallest(settings.length, tokenizer.vocab_size)
    if settings.teacher is not None:
        return _packed_for_both(settings, settings.teacher, tokenizer, record_format, texts)
    special = tokenizer.special
    # A document becomes pieces that fit into a sequence with [CLS] and [SEP].
    pieces: list[np.ndarray] = []
    for ids in tokenizer.ids(texts):
        # An array: a list of Python's integers takes ten times the memory.
        pieces += chunks(np.array(ids, record_format.token_dtype), settings.length - 2)

    # Pieces are packed into sequences, or each is one by itself.
    packed = [[number] for number in range(len(pieces))]
    if settings.packs:
        packed = best_fit([len(piece) + 2 for piece in pieces], settings.length)
    sequences = items_of_bins(pieces, packed)
    records = record_format.encode(sequences, start=special.start, end=special.end, pad=special.pad)
    return _PackedSplit(pieces, records)


def _packed_for_both(
    settings: BlockSettings,
    teacher: TeacherText,
    tokenizer: TextTokenizer,
    record_format: RecordFormat,
    texts: list[str],
) -> _PackedSplit:
    """Tokenise the texts of a split by both tokenizers, and pack them so that both sides fit."""
    teacher_tokenizer = _tokenizer(teacher.tokenizer, teacher.tokenizer_sha256)
    teacher_format = RecordFormat.smallest(teacher.length, teacher_tokenizer.vocab_size)
    aligned = align_documents(texts, tokenizer, teacher_tokenizer, record_format, teacher_format)
    rows = [[piece] for piece in aligned.pieces]
    if settings.packs:
        rows = pack_aligned(aligned.pieces, record_format.length, teacher.length)
    both = AlignedFormat(record_format, teacher_format)
    count_unknown = teacher_tokenizer.special.count_unknown
    return _PackedSplit(
        [piece.tokens for piece in aligned.pieces],
        both.encode(rows, tokenizer.special, teacher_tokenizer.special),
        sum(len(piece.teacher_tokens) for piece in aligned.pieces),
        sum(count_unknown(piece.teacher_tokens) for piece in aligned.pieces),
        aligned.words,
        aligned.left_out,
    )


def read_block(directory: Path, index: int) -> FinishedBlock | None:
    """Read the record of a finished block, without its shards; None where there is none."""
    path = _record_path(directory, index)
    if not path.exists():
        return None
    return read_typed(FinishedBlock, path)


def find_finished(directory: Path, index: int, documents: int) -> FinishedBlock | None:
    """Read a block's record if its shards are whole and hold so many documents; else None.

    Args:
        directory: directory of the corpus.
        index: number of the block.
        documents: number of its documents.
    """
    record = read_block(directory, index)
    if record is None or sum(record.documents.values()) != documents:
        return None
    # An earlier version left figures out, and may have split repeated texts in another way.
    if not record.unknown:
        return None
    if not all(shard.intact(directory) for shard in record.shards):
        return None
    return record


@functools.lru_cache(maxsize=2)  # a student's and a teacher's
def _tokenizer(path: Path, digest: str) -> TextTokenizer:
    """Read a tokenizer once per process; the digest tells one content of a path from another."""
    return TextTokenizer.read(path)


def _record_path(directory: Path, index: int) -> Path:
    return directory / SHARDS / f"part-{index:05d}.json"
