"""The unit of preparation: documents that are packed together into one shard a split, wherever that
is done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from kdjax.data.manifest import SPLITS, Shard
from kdjax.data.prepare.packing import RecordFormat, best_fit, chunks
from kdjax.data.shards import SHARDS, write_shard
from kdjax.data.text.sources import Document
from kdjax.data.tokenizer import TextTokenizer
from kdjax.files import read_json, write_json

BLOCK_BYTES = 32 * 2**20
"""Text of a block in UTF-8: long documents make blocks of fewer documents, so that a block fits in
memory."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class BlockSettings:
    """What the shards of a block depend on besides its documents, and where they go.

    Attributes:
        directory: where they are written.
        tokenizer: a tokenizer.json.
        tokenizer_sha256: of the file.
        length: tokens of a sequence.
        validation: share of documents held out.
    """

    directory: Path
    tokenizer: Path
    tokenizer_sha256: str
    length: int
    validation: float


@dataclass(frozen=True)
class Block:
    """Documents that are packed together, and what that takes. All processes share nothing else."""

    index: int
    documents: list[Document]
    settings: BlockSettings


@dataclass(frozen=True)
class Part:
    """A finished block: its counts per split and its shards. Written after its shards, as the proof
    they are whole."""

    index: int
    documents: dict[str, int]
    tokens: dict[str, int]
    text_tokens: dict[str, int]
    shards: tuple[Shard, ...]


def cut(documents: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Blocks of consecutive documents: at most so many, and of at most `BLOCK_BYTES` together.

    Args:
        documents: the documents, or anything that stands for them.
        size: bytes of one.
        most: documents of a block.
    """
    block: list[Item] = []
    bytes_ = 0
    for document in documents:
        more = size(document)
        if len(block) == most or (block and bytes_ + more > BLOCK_BYTES):
            yield block
            block = []
            bytes_ = 0
        block.append(document)
        bytes_ += more
    if block:
        yield block


def make_part(block: Block) -> Part:
    """Tokenises and packs a block and writes its shards, then the record that they are whole."""
    settings = block.settings
    tokenizer = _tokenizer(settings.tokenizer, settings.tokenizer_sha256)
    record_format = RecordFormat.smallest(settings.length, tokenizer.vocab_size)
    frame = {
        "cls": tokenizer.named["[CLS]"],
        "sep": tokenizer.named["[SEP]"],
        "pad": tokenizer.named["[PAD]"],
    }
    documents = {}
    tokens = {}
    text_tokens = {}
    shards = []
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for document in block.documents:
        texts["validation" if document.is_held_out(settings.validation) else "train"].append(
            document.text
        )
    for split, chosen in texts.items():
        # Arrays: a list of Python's integers takes ten times the memory.
        found = map(
            functools.partial(np.array, dtype=record_format.token_dtype), tokenizer.ids(chosen)
        )
        pieces = [piece for ids in found for piece in chunks(ids, settings.length - 2)]
        documents[split], text_tokens[split] = len(chosen), sum(map(len, pieces))
        tokens[split] = text_tokens[split] + 2 * len(pieces)
        packed = best_fit([len(piece) + 2 for piece in pieces], settings.length)
        if packed:
            records = record_format.encode([[pieces[i] for i in bin_] for bin_ in packed], **frame)
            shards.append(
                write_shard(settings.directory, f"{split}-{block.index:05d}", split, records)
            )
    part = Part(block.index, documents, tokens, text_tokens, tuple(shards))
    write_json(_part_path(settings.directory, block.index), dataclasses.asdict(part))
    return part


def read_part(directory: Path, index: int) -> Part | None:
    """The record of a finished block, or None where there is none; its shards are not looked at."""
    path = _part_path(directory, index)
    if not path.exists():
        return None
    values = read_json(path)
    return Part(**{**values, "shards": tuple(Shard(**shard) for shard in values["shards"])})


def finished(directory: Path, index: int, documents: int) -> Part | None:
    """A block's record when it is of so many documents, and all its shards are there and whole."""
    part = read_part(directory, index)
    if part is None or sum(part.documents.values()) != documents:
        return None
    return part if all(shard.intact(directory) for shard in part.shards) else None


@functools.lru_cache(maxsize=1)
def _tokenizer(path: Path, digest: str) -> TextTokenizer:
    """Read once per process; the digest tells one content of a path from another."""
    return TextTokenizer.read(path)


def _part_path(directory: Path, index: int) -> Path:
    return directory / SHARDS / f"part-{index:05d}.json"
