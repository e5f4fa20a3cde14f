"""Raw text into a prepared corpus: tokenised, packed and sharded; the same bytes whatever the
number of processes."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdjax.data.manifest import Manifest
from kdjax.data.prepare import processes
from kdjax.data.prepare.blocks import Block, Part, cut, finished, make_part
from kdjax.data.prepare.preparation import Preparation, check_plan, claimed
from kdjax.data.text import sources

if TYPE_CHECKING:  # a worker starts sooner without the config library
    from kdjax.config import DataConfig

__all__ = ["Manifest", "prepare"]

Progress = Callable[[int, int, float], None]
"""Called after each block with the documents and text tokens prepared by this call so far, and its
seconds so far."""


def prepare(
    config: DataConfig,
    tokenizer: Path | None,
    out: Path,
    progress: Progress | None = None,
    *,
    held_out: bool = False,
) -> Manifest:
    """Prepares a corpus in a directory, or goes on with an interrupted preparation, or finds it
    done.

    A document's tokens become chunks of at most `length - 2`; each chunk, framed by [CLS] and
    [SEP], is one segment; segments are packed into sequences by best fit within a block of at most
    `shard_documents` documents and `blocks.BLOCK_BYTES` of text. A block is one ArrayRecord shard
    per split. Shards that are already there are kept when their digests are right, else made again.

    Memory does not grow with the corpus: this process holds two blocks more than there are workers,
        a worker one.

    Args:
        config: files and settings.
        tokenizer: a tokenizer.json; None: one is trained first, as `data.tokenizer` says, and kept
            in `out`.
        out: the directory: new, empty, or an earlier preparation of the same text with the same
            settings.
        progress: told after each block.
        held_out: whether all of the text goes into the validation split, and the training split is
            empty.

    Raises:
        InputError: unusable text or tokenizer, a corpus too small for its splits, or a directory
            that holds something else, is in use or cannot be written. A directory of unusable text
            is left as it was found.
    """
    preparation = Preparation.of(config, tokenizer, out, held_out=held_out)
    plan = preparation.plan([sources.digest(source) for source in preparation.sources])
    with claimed(out):
        check_plan(out, plan)
        preparation = preparation.with_tokenizer()
        done = preparation.done()
        if done is not None:
            return done
        parts = _parts(_blocks(preparation), config.workers or os.cpu_count() or 1, progress)
        return preparation.finish(plan, parts)


def _blocks(preparation: Preparation) -> Iterator[Block]:
    documents = (
        document
        for source in preparation.sources
        for document in sources.documents_of(source, preparation.text_fields)
    )
    for index, block in enumerate(cut(documents, operator.attrgetter("size"), preparation.most)):
        yield Block(index, block, preparation.blocks)


def _parts(blocks: Iterable[Block], workers: int, progress: Progress | None) -> list[Part]:
    """Every block's part in order: those found whole, and those made now."""
    kept: list[Part] = []

    def missing() -> Iterator[Block]:
        for block in blocks:
            part = finished(block.settings.directory, block.index, len(block.documents))
            if part is None:
                yield block
            else:
                kept.append(part)

    made: list[Part] = []
    documents = 0
    tokens = 0
    start = time.monotonic()
    for part in processes.run(make_part, missing(), workers):
        made.append(part)
        documents += sum(part.documents.values())
        tokens += sum(part.text_tokens.values())
        if progress:
            progress(documents, tokens, time.monotonic() - start)
    return sorted(kept + made, key=lambda part: part.index)
