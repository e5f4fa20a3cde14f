"""Raw text into a prepared corpus, on one machine; the same bytes whatever the number of
processes."""

from __future__ import annotations

import itertools
import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdjax.data.manifest import Manifest
from kdjax.data.prepare import processes
from kdjax.data.prepare.blocks import Block, FinishedBlock, cut, find_finished, make_block
from kdjax.data.prepare.preparation import Preparation, check_plan, preparing
from kdjax.text import sources
from kdjax.text.reading_notes import ReadingNotes
from kdjax.text.repeats import RepeatFinder

if TYPE_CHECKING:  # a worker starts sooner without the config library
    from kdjax.config import DataConfig

ReportBlocks = Callable[[int, int, float], None]
"""Takes the documents and text tokens that a call has prepared so far, and its seconds so far."""


def prepare(
    config: DataConfig,
    tokenizer: Path | None,
    out: Path,
    progress: ReportBlocks | None = None,
    *,
    held_out: bool = False,
) -> Manifest:
    """Prepare a corpus in a directory, or go on with an interrupted preparation, or find it done.

    A document's tokens become chunks of at most `length - 2`; each chunk, framed by [CLS] and
    [SEP], is one segment; segments are packed into sequences by best fit within a block of at most
    `shard_documents` documents and `blocks.BLOCK_BYTES` of text. A block is one ArrayRecord shard
    per split. Shards that are already there are kept when their digests are right, else made again.

    Memory hardly grows with the corpus: this process holds two blocks more than there are workers,
    and a hash of 8 bytes of every text, a worker one block.

    Args:
        config: files of the text, and how they are split into sequences.
        tokenizer: a tokenizer.json; None: one is trained first, as `data.tokenizer` says, and kept
            in `out`.
        out: the directory: new, empty, or an earlier preparation of the same text with the same
            settings.
        progress: function called after each block.
        held_out: whether all of the text goes into the validation split, and the training split is
            empty.

    Raises:
        InputError: unusable text or tokenizer, a corpus too small for its splits, or a directory
            that holds something else, is in use or cannot be written. A directory of unusable text
            is left as it was found.
    """
    preparation = Preparation.from_config(config, tokenizer, out, held_out=held_out)
    plan = preparation.plan([sources.digest(source) for source in preparation.sources])
    with preparing(out):
        check_plan(out, plan)
        preparation = preparation.with_tokenizer()
        finished = preparation.finished_manifest()
        if finished is not None:
            return finished
        workers = config.workers or os.cpu_count() or 1
        notes = ReadingNotes()
        repeats = RepeatFinder(deduplicate=config.deduplicate)
        records = _make_missing(_blocks(preparation, notes, repeats), workers, progress)
        return preparation.finish(plan, records, notes, repeats)


def _blocks(
    preparation: Preparation, notes: ReadingNotes, repeats: RepeatFinder
) -> Iterator[Block]:
    """Read the documents of all sources and cut them into blocks."""
    by_source = (
        sources.documents_of(source, preparation.reading, notes) for source in preparation.sources
    )
    read = itertools.chain.from_iterable(by_source)
    documents = repeats.split(read, preparation.validation)
    blocks = cut(documents, operator.attrgetter("size"), preparation.max_documents)
    for index, block in enumerate(blocks):
        yield Block(index, block, preparation.blocks)


def _make_missing(
    blocks: Iterable[Block], workers: int, progress: ReportBlocks | None
) -> list[FinishedBlock]:
    """Make the blocks that are not finished; return all in order."""
    records: list[FinishedBlock] = []

    def missing() -> Iterator[Block]:
        for block in blocks:
            record = find_finished(block.settings.directory, block.index, len(block.documents))
            if record is None:
                yield block
            else:
                records.append(record)

    # Blocks are read only as fast as they are made, and come back in any order.
    documents = 0
    tokens = 0
    start = time.monotonic()
    for record in processes.run(make_block, missing(), workers):
        records.append(record)
        documents += sum(record.documents.values())
        tokens += sum(record.text_tokens.values())
        if progress:
            progress(documents, tokens, time.monotonic() - start)
    return sorted(records, key=lambda record: record.index)
