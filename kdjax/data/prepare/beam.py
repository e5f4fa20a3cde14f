"""Raw text into a prepared corpus, on many machines: Apache Beam pipelines that write the same
bytes as one machine does.

Which documents make a block follows from how many there are and how long, so the first pipeline
counts: every source's documents and their sizes, in parallel over the sources. Sums of these say
which block a document belongs to, and the second pipeline reads the sources again, sends every
document to its block, and makes the blocks' shards.

Launcher and workers see the sources, the tokenizer and the corpus's directory under the same paths.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
import shutil
import uuid
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from kdjax.data.manifest import Manifest
from kdjax.data.prepare.blocks import (
    Block,
    BlockSettings,
    FinishedBlock,
    cut,
    find_finished,
    make_block,
    read_block,
)
from kdjax.data.prepare.preparation import SCAN, Preparation, check_ours, check_plan, preparing
from kdjax.data.text import sources
from kdjax.data.text.sources import Document, Source
from kdjax.errors import InputError
from kdjax.files import read_json, write_json

if TYPE_CHECKING:
    from kdjax.config import DataConfig

IN_PROCESS = "FnApiRunner"
"""The runner where none is named. Beam's own choice would look for a program to download first."""
SIZES_HELD = 2**16
"""Documents whose sizes are held at a time."""

Piece = tuple[int, list[Document]]
"""Consecutive documents of a block: the number of the first, and the documents."""


def prepare(
    config: DataConfig, tokenizer: Path | None, out: Path, options: Sequence[str] = ()
) -> Manifest:
    """Prepare a corpus with Beam: what `kdjax.data.prepare.local.prepare` makes, byte for byte.

    Interrupted, it counts again and makes only the blocks that are missing; either way to prepare
    goes on with what the other began. A worker holds the text of one block (`blocks.BLOCK_BYTES`).

    Args:
        config: files and settings; `workers` is the runner's business.
        tokenizer: a tokenizer.json; None: one is trained first, as `data.tokenizer` says, by this
            process, which reads all of the text for it, and kept in `out`.
        out: directory that the corpus is written to.
        options: Beam's own options, as on a command line: `--runner=...`. Without a runner,
            everything runs in this process and its memory: enough to try a pipeline out.

    Raises:
        InputError: as `kdjax.data.prepare.local.prepare`; options or a runner that Beam does not
            have.
    """
    preparation = Preparation.of(config, tokenizer, out)
    runner = _options(options)
    fields = preparation.text_fields
    with preparing(out), _scanning(out) as scan:
        # The first pipeline counts. Which sources there are and what is in them is the plan.
        count = "count documents" >> beam.Map(functools.partial(count_documents, scan, fields))
        _run(runner, list(enumerate(preparation.sources)), count)
        digests, counts = _read_counts(scan, preparation.sources)
        plan = preparation.plan(digests)
        check_plan(out, plan)
        preparation = preparation.with_tokenizer()
        done = preparation.done()
        if done is not None:
            return done

        # The second sends every document to its block and makes the blocks' shards.
        starts = _block_starts(scan, len(counts), preparation.max_documents)
        firsts = itertools.accumulate(counts, initial=0)
        numbered = list(zip(preparation.sources, firsts, strict=False))
        read = "read documents" >> beam.FlatMap(
            functools.partial(read_documents, out, fields, starts)
        )
        make = "make shards" >> beam.Map(functools.partial(make_shards, preparation.blocks, starts))
        _run(runner, numbered, read, beam.GroupByKey(), make)
        records = [_read_record(out, index) for index in range(len(starts) - 1)]
        return preparation.finish(plan, records)


def count_documents(scan: Path, text_fields: Sequence[str], numbered: tuple[int, Source]) -> None:
    """Write a source's digest and the bytes of each document, or why the source is unusable.

    Args:
        scan: the directory to write to.
        text_fields: fields of a record, of which the first one present holds the text.
        numbered: the source's number among all, and the source.

    Raises:
        InputError: the directory cannot be written to.
    """
    number, source = numbered
    count = 0
    temporary = scan / f".{number}.{uuid.uuid4().hex}.tmp"
    try:
        # Few sizes are held at a time, for a source may have millions of documents.
        sizes = (document.size for document in sources.documents_of(source, text_fields))
        with temporary.open("wb") as file:
            while held := array("I", itertools.islice(sizes, SIZES_HELD)):
                held.tofile(file)
                count += len(held)
        temporary.replace(_sizes_path(scan, number))
        facts = {"sha256": sources.digest(source), "documents": count}
        write_json(_count_path(scan, number), facts)
    except InputError as e:
        # Noted, not raised: of several unusable sources the launcher names the first.
        write_json(_count_path(scan, number), {"error": str(e)})
    except OSError as e:
        raise InputError(
            f"{temporary}: cannot be written ({e.strerror}), expected a writable directory with "
            "room"
        ) from None


def read_documents(
    directory: Path, text_fields: Sequence[str], starts: Sequence[int], numbered: tuple[Source, int]
) -> Iterator[tuple[int, Piece]]:
    """Yield a source's documents by block, as the block's index and a piece of its documents.

    Blocks that are finished are passed over.

    Args:
        directory: directory of the corpus, with the blocks that are finished.
        text_fields: fields of a record, of which the first one present holds the text.
        starts: number of the first document of every block, and of the one after the last.
        numbered: the source and the number of its first document.

    Raises:
        InputError: the source holds more documents than were counted, or is unusable.
    """
    source, first = numbered
    documents = enumerate(sources.documents_of(source, text_fields), first)
    by_block = itertools.groupby(documents, lambda pair: bisect_right(starts, pair[0]) - 1)
    for index, group in by_block:
        # Behind the last block: the text has grown since it was counted.
        if index == len(starts) - 1:
            raise InputError(
                f"{source}: has more documents than before, expected text that does not change "
                "meanwhile"
            )
        if find_finished(directory, index, _documents_of(starts, index)) is None:
            pairs = list(group)
            yield index, (pairs[0][0], [document for _, document in pairs])


def make_shards(
    settings: BlockSettings, starts: Sequence[int], block: tuple[int, Iterable[Piece]]
) -> None:
    """Make a block of its documents, which come in several pieces where it spans sources.

    Args:
        settings: what the block's shards depend on besides its documents.
        starts: number of the first document of every block, and of the one after the last.
        block: the block's index, and pieces of its documents in any order.

    Raises:
        InputError: the block has another number of documents than were counted.
    """
    # Sources are read in parallel, so that pieces come in any order.
    index, pieces = block
    in_order = sorted(pieces, key=lambda piece: piece[0])
    documents = list(itertools.chain.from_iterable(piece for _, piece in in_order))
    expected = _documents_of(starts, index)
    if len(documents) != expected:
        raise InputError(
            f"block {index}: has {len(documents)} documents and {expected} were counted, expected "
            "text that does not change meanwhile"
        )
    make_block(Block(index, documents, settings))


def _options(words: Sequence[str]) -> Any:
    """Parse Beam's options.

    Raises:
        InputError: Beam does not have them.
    """
    usage = io.StringIO()
    try:
        # Beam prints a page of usage and exits where it does not know an option.
        with contextlib.redirect_stderr(usage):
            options = PipelineOptions(list(words))
            standard = options.view_as(StandardOptions)
            standard.runner = standard.runner or IN_PROCESS
            options.get_all_options()
            beam.Pipeline(options=options)
    except (ImportError, ValueError, SystemExit) as e:
        reason = str(e)
        if isinstance(e, SystemExit):
            reason = usage.getvalue().strip().rpartition("\n")[2]
        raise InputError(
            f"--beam -- {' '.join(words)}: {reason}; expected Apache Beam's pipeline options"
        ) from None
    return options


@contextlib.contextmanager
def _scanning(out: Path) -> Iterator[Path]:
    """Make an empty directory for the counts, and take it away at the end, also of an error."""
    check_ours(out)
    scan = out / SCAN
    shutil.rmtree(scan, ignore_errors=True)
    scan.mkdir()
    try:
        yield scan
    finally:
        shutil.rmtree(scan, ignore_errors=True)


def _run(options: Any, items: Sequence[Any], *steps: Any) -> None:
    """Run transforms one after another over items, in parallel.

    Raises:
        InputError: one was raised by a worker.
    """
    pipeline = beam.Pipeline(options=options)
    # Reshuffled: a runner would otherwise do all that follows where the items were created.
    collection = pipeline | beam.Create(items, reshuffle=False) | beam.Reshuffle()
    for step in steps:
        collection = collection | step
    try:
        pipeline.run().wait_until_finish()
    except Exception as e:
        message = _raised_by_worker(e)
        if message is None:
            raise
        raise InputError(message) from None


def _raised_by_worker(error: Exception) -> str | None:
    """Return the message of an InputError that a worker raised; None for any other error."""
    # Runners wrap it, or hand on its traceback.
    line = re.search(r"^kdjax\.[\w.]+Error: (.*)$", str(error), re.MULTILINE)
    if isinstance(error, InputError):
        message = str(error)
    elif line:
        message = line[1]
    else:
        return None
    return message.partition(" [while running ")[0]


def _read_counts(scan: Path, numbered_sources: Sequence[Source]) -> tuple[list[str], list[int]]:
    """Read the digest of every source, and its number of documents.

    Raises:
        InputError: the first one that is unusable says why.
    """
    digests = []
    counts = []
    for number in range(len(numbered_sources)):
        values = read_json(_count_path(scan, number))
        if "error" in values:
            raise InputError(values["error"])
        digests.append(values["sha256"])
        counts.append(values["documents"])
    return digests, counts


def _block_starts(scan: Path, source_count: int, max_documents: int) -> Sequence[int]:
    """Return the number of the first document of every block, and of the one after the last."""
    starts = array("Q", [0])
    for block in cut(_all_sizes(scan, source_count), int, max_documents):
        starts.append(starts[-1] + len(block))
    return starts


def _all_sizes(scan: Path, source_count: int) -> Iterator[int]:
    """Yield the sizes of all documents, source by source."""
    for number in range(source_count):
        with _sizes_path(scan, number).open("rb") as file:
            while held := file.read(SIZES_HELD * array("I").itemsize):
                yield from array("I", held)


def _documents_of(starts: Sequence[int], index: int) -> int:
    """Return the number of a block's documents."""
    return starts[index + 1] - starts[index]


def _read_record(out: Path, index: int) -> FinishedBlock:
    record = read_block(out, index)
    if record is None:
        raise InputError(
            f"{out}: block {index} is missing, expected the workers to see the same directory"
        )
    return record


def _count_path(scan: Path, number: int) -> Path:
    return scan / f"{number:05d}.json"


def _sizes_path(scan: Path, number: int) -> Path:
    return scan / f"{number:05d}.sizes"
