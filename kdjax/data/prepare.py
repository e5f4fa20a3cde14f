"""Raw text into a prepared corpus: tokenised, packed and sharded; the same bytes whatever the number of processes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdjax.data import manifest, processes, sources
from kdjax.data.manifest import SPLITS, Manifest, Shard, total
from kdjax.data.packing import RecordFormat, best_fit, chunks
from kdjax.data.shards import SHARDS, held, write_shard
from kdjax.data.sources import Document, TextError, split_fraction
from kdjax.data.tokenizer import TextTokenizer
from kdjax.errors import InputError
from kdjax.files import read_json, write_json

if TYPE_CHECKING:  # a worker starts sooner without the config library
    from kdjax.config import DataConfig

__all__ = ["Manifest", "prepare"]

PLAN = "preparation.json"
"""What the directory is prepared from; written first, so that a restart can tell whether it may go on."""

Progress = Callable[[int, int, float], None]
"""Called after each block with the documents and text tokens prepared by this call so far, and its seconds so far."""


@dataclass(frozen=True)
class Block:
    """Documents that are packed together, and what that takes. All processes share nothing else."""

    index: int
    documents: list[Document]
    directory: Path
    tokenizer: Path
    tokenizer_sha256: str
    length: int
    validation: float


@dataclass(frozen=True)
class Part:
    """A finished block: its counts per split and its shards. Written after its shards, as the proof they are whole."""

    index: int
    documents: dict[str, int]
    tokens: dict[str, int]
    text_tokens: dict[str, int]
    shards: tuple[Shard, ...]


def prepare(config: DataConfig, tokenizer: Path, out: Path, progress: Progress | None = None) -> Manifest:
    """Prepares a corpus in a directory, or goes on with an interrupted preparation, or finds it done.

    A document's tokens become chunks of at most `length - 2`; each chunk, framed by [CLS] and [SEP], is one segment;
    segments are packed into sequences by best fit within a block of `shard_documents` documents. A block is one
    ArrayRecord shard per split. Shards that are already there are kept when their digests are right, else made again.

    Args:
        config: files and settings.
        tokenizer: a tokenizer.json.
        out: the directory: new, empty, or an earlier preparation of the same text with the same settings.
        progress: told after each block.

    Raises:
        InputError: unusable text or tokenizer, a corpus too small for both splits, or a directory that holds something
            else, is in use or cannot be written. A directory of unusable text is left as it was found.
    """
    files = sources.expand(config.files)
    text_tokenizer = TextTokenizer.read(tokenizer)
    plan = {
        "version": manifest.VERSION,
        "tokenizer_sha256": text_tokenizer.sha256,
        "sources": {str(path): sources.sha256(path) for path in files},
        "settings": {
            "length": config.length,
            "validation": config.validation,
            "shard_documents": config.shard_documents,
            "text_field": [config.text_field] if isinstance(config.text_field, str) else list(config.text_field),
        },
    }
    with _claimed(out, plan):
        done = Manifest.read(out) if (out / manifest.NAME).exists() else None
        if done is not None and all(shard.intact(out) for shard in done.shards):
            return done
        parts = _parts(
            _blocks(config, tokenizer, text_tokenizer.sha256, out), config.workers or os.cpu_count() or 1, progress
        )
        made = _manifest(plan, text_tokenizer, parts)
        made.write(out)
        return made


@contextlib.contextmanager
def _claimed(out: Path, plan: dict[str, Any]) -> Iterator[None]:
    """Takes the directory for this plan alone, and clears it again if the text turns out to be unusable."""
    created = not out.exists()
    try:
        with held(out, PLAN, "prepares a corpus"):
            _check_plan(out, plan)
            yield
    except TextError:
        shutil.rmtree(out / SHARDS, ignore_errors=True)
        for name in (PLAN, manifest.NAME):
            (out / name).unlink(missing_ok=True)
        if created:
            out.rmdir()
        raise


def _check_plan(out: Path, plan: dict[str, Any]) -> None:
    path = out / PLAN
    if not path.exists():
        if any(out.iterdir()):
            raise InputError(f"{out}: is not empty and holds no prepared corpus, expected a new or empty directory")
        write_json(path, plan)
        return
    found = read_json(path)
    if list(found["sources"].values()) != list(plan["sources"].values()):  # where they lie does not matter
        raise InputError(
            f"{out}: was prepared from other text than {', '.join(plan['sources'])}, expected a new directory"
        )
    for name in ("version", "tokenizer_sha256"):
        if found[name] != plan[name]:
            raise InputError(f"{out}: was prepared with {name} {found[name]}, expected {plan[name]} or a new directory")
    for name, value in plan["settings"].items():
        if found["settings"][name] != value:
            before = found["settings"][name]
            raise InputError(f"{out}: was prepared with data.{name} {before}, expected {value} or a new directory")


def _blocks(config: DataConfig, tokenizer: Path, tokenizer_sha256: str, out: Path) -> Iterator[Block]:
    documents = sources.documents(config.files, config.text_field)
    for index in itertools.count():
        block = list(itertools.islice(documents, config.shard_documents))
        if not block:
            return
        yield Block(index, block, out, tokenizer, tokenizer_sha256, config.length, config.validation)


def _parts(blocks: Iterable[Block], workers: int, progress: Progress | None) -> list[Part]:
    """Every block's part in order: those found whole, and those made now."""
    kept: list[Part] = []

    def missing() -> Iterator[Block]:
        for block in blocks:
            part = _finished(block)
            if part is None:
                yield block
            else:
                kept.append(part)

    made: list[Part] = []
    documents, tokens, start = 0, 0, time.monotonic()
    for part in processes.run(make_part, missing(), workers):
        made.append(part)
        documents += sum(part.documents.values())
        tokens += sum(part.text_tokens.values())
        if progress:
            progress(documents, tokens, time.monotonic() - start)
    return sorted(kept + made, key=lambda part: part.index)


def make_part(block: Block) -> Part:
    """Tokenises and packs a block and writes its shards, then the record that they are whole."""
    tokenizer = _tokenizer(block.tokenizer, block.tokenizer_sha256)
    record_format = RecordFormat.smallest(block.length, tokenizer.vocab_size)
    frame = {"cls": tokenizer.named["[CLS]"], "sep": tokenizer.named["[SEP]"], "pad": tokenizer.named["[PAD]"]}
    documents, tokens, text_tokens, shards = {}, {}, {}, []
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for document in block.documents:
        held_out = split_fraction(document.identity) < block.validation
        texts["validation" if held_out else "train"].append(document.text)
    for split, chosen in texts.items():
        pieces = [piece for ids in tokenizer.ids(chosen) for piece in chunks(ids, block.length - 2)]
        documents[split], text_tokens[split] = len(chosen), sum(map(len, pieces))
        tokens[split] = text_tokens[split] + 2 * len(pieces)
        packed = best_fit([len(piece) + 2 for piece in pieces], block.length)
        if packed:
            records = (record_format.encode([pieces[i] for i in bin_], **frame) for bin_ in packed)
            shards.append(write_shard(block.directory, f"{split}-{block.index:05d}", split, records))
    part = Part(block.index, documents, tokens, text_tokens, tuple(shards))
    write_json(_part_path(block), dataclasses.asdict(part))
    return part


@functools.lru_cache(maxsize=1)
def _tokenizer(path: Path, digest: str) -> TextTokenizer:
    """Read once per process; the digest tells one content of a path from another."""
    return TextTokenizer.read(path)


def _part_path(block: Block) -> Path:
    return block.directory / SHARDS / f"part-{block.index:05d}.json"


def _finished(block: Block) -> Part | None:
    """The block's part when its record and all its shards are there and whole."""
    path = _part_path(block)
    if not path.exists():
        return None
    values = read_json(path)
    part = Part(**{**values, "shards": tuple(Shard(**shard) for shard in values["shards"])})
    return part if all(shard.intact(block.directory) for shard in part.shards) else None


def _manifest(plan: dict[str, Any], tokenizer: TextTokenizer, parts: list[Part]) -> Manifest:
    shards = tuple(shard for split in SPLITS for part in parts for shard in part.shards if shard.split == split)
    documents, tokens = total(part.documents for part in parts), total(part.tokens for part in parts)
    sequences = {split: sum(shard.sequences for shard in shards if shard.split == split) for split in SPLITS}
    length = plan["settings"]["length"]
    if not all(sequences.values()):
        raise TextError(
            f"{', '.join(plan['sources'])}: {sum(documents.values())} documents make {sequences['train']} training and "
            f"{sequences['validation']} validation sequences, expected some of each: more text or other data.validation"
        )
    record_format = RecordFormat.smallest(length, tokenizer.vocab_size)
    return Manifest(
        version=plan["version"],
        length=length,
        vocab_size=tokenizer.vocab_size,
        special=tokenizer.named,
        special_ids=tokenizer.special_ids,
        token_dtype=record_format.token_dtype,
        segment_dtype=record_format.segment_dtype,
        tokenizer_sha256=tokenizer.sha256,
        sources=plan["sources"],
        settings=plan["settings"],
        documents=documents,
        sequences=sequences,
        tokens=tokens,
        text_tokens=total(part.text_tokens for part in parts),
        fill={split: tokens[split] / (sequences[split] * length) for split in SPLITS},
        shards=shards,
    ).signed()
