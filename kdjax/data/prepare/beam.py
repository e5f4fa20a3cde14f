"""Raw text into a prepared corpus, on many machines: Apache Beam pipelines that write the same
bytes as one machine does.

Which documents make a block follows from how many there are and how long, and which split one
belongs to from the texts before it. So the first pipeline takes every document's size and hashes,
in parallel over the sources; from these the launcher decides where each belongs. The second
pipeline reads the sources again, sends every document to its block, and makes the blocks' shards.

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
import numpy as np
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
from kdjax.errors import InputError
from kdjax.storage.files import write_json
from kdjax.storage.typed_json import check_fields, read_typed
from kdjax.text import sources
from kdjax.text.document import ReadSettings
from kdjax.text.reading_notes import ReadingNotes
from kdjax.text.repeats import Fingerprint, RepeatFinder, SplitDocument
from kdjax.text.source_kinds import Source

if TYPE_CHECKING:
    from kdjax.config import DataConfig

IN_PROCESS = "FnApiRunner"
"""The runner where none is named. Beam's own choice would look for a program to download first."""
DOCUMENTS_HELD = 2**16
"""Documents whose fingerprints are held at a time."""
FINGERPRINT = np.dtype([("text", "<u8"), ("identity", "<u8"), ("size", "<u4"), ("held_out", "?")])
"""How a `Fingerprint` is kept in a file."""
HELD_OUT = 1
LEFT_OUT = 2
"""Where a document belongs, a byte each: to the held-out split or nowhere; 0: to the training
split."""

Piece = tuple[int, list[SplitDocument]]
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
        InputError: unusable text or tokenizer, a corpus too small for its splits, a directory that
            cannot be used, or options or a runner that Beam does not have.
    """
    preparation = Preparation.from_config(config, tokenizer, out)
    runner = _options(options)
    reading = preparation.reading
    with preparing(out), _scanning(out) as scan:
        # The first pipeline counts. Which sources there are and what is in them is the plan.
        count = "count documents" >> beam.Map(
            functools.partial(count_documents, scan, reading, preparation.validation)
        )
        _run(runner, list(enumerate(preparation.sources)), count)
        digests, notes = read_counts(scan, len(preparation.sources))
        plan = preparation.plan(digests)
        check_plan(out, plan)
        preparation = preparation.with_tokenizer()
        finished = preparation.finished_manifest()
        if finished is not None:
            return finished

        # The launcher decides where each document belongs, in their order.
        repeats = RepeatFinder(deduplicate=config.deduplicate)
        counts = [_place(scan, number, repeats) for number in range(len(digests))]
        starts = _block_starts(scan, len(counts), preparation.max_documents)

        # The second sends every document to its block and makes the blocks' shards.
        firsts = itertools.accumulate(counts, initial=0)
        numbered = list(zip(itertools.count(), preparation.sources, firsts, strict=False))
        read = "read documents" >> beam.FlatMap(
            functools.partial(read_documents, scan, reading, starts)
        )
        make = "make shards" >> beam.Map(functools.partial(make_shards, preparation.blocks, starts))
        _run(runner, numbered, read, beam.GroupByKey(), make)
        records = [_read_record(out, index) for index in range(len(starts) - 1)]
        return preparation.finish(plan, records, notes, repeats)


def count_documents(
    scan: Path, reading: ReadSettings, validation: float, numbered: tuple[int, Source]
) -> None:
    """Write a source's digest and the fingerprint of each document; or why it is unusable.

    Args:
        scan: the directory to write to.
        reading: how documents are found in a source.
        validation: share of documents that are held out.
        numbered: the source's number among all, and the source.

    Raises:
        InputError: the directory cannot be written to.
    """
    number, source = numbered
    notes = ReadingNotes()
    temporary = scan / f".{number}.{uuid.uuid4().hex}.tmp"
    try:
        # Few are held at a time, for a source may have millions of documents.
        documents = sources.documents_of(source, reading, notes)
        rows = (_row(Fingerprint.from_document(document, validation)) for document in documents)
        with temporary.open("wb") as file:
            while batch_of_rows := list(itertools.islice(rows, DOCUMENTS_HELD)):
                file.write(np.array(batch_of_rows, FINGERPRINT).tobytes())
        temporary.replace(_fingerprints_path(scan, number))
        facts = {"sha256": sources.digest(source), "notes": vars(notes)}
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
    scan: Path, reading: ReadSettings, starts: Sequence[int], numbered: tuple[int, Source, int]
) -> Iterator[tuple[int, Piece]]:
    """Yield a source's documents by block, as the block's index and a piece of its documents.

    Blocks that are finished are passed over.

    Args:
        scan: the directory that says where each document belongs, in the corpus's directory.
        reading: how documents are found in a source.
        starts: number of the first document of every block, and of the one after the last.
        numbered: the source's number, the source and the number of its first document.

    Raises:
        InputError: the source holds more documents than were counted, or is unusable.
    """
    number, source, first = numbered
    documents = enumerate(_placed_documents(scan, reading, number, source), first)
    by_block = itertools.groupby(documents, lambda pair: bisect_right(starts, pair[0]) - 1)
    for index, group in by_block:
        if find_finished(scan.parent, index, _documents_of(starts, index)) is None:
            pairs = list(group)
            yield index, (pairs[0][0], [document for _, document in pairs])


def _placed_documents(
    scan: Path, reading: ReadSettings, number: int, source: Source
) -> Iterator[SplitDocument]:
    """Yield a source's documents, but for those that are left out, each with its split."""
    documents = sources.documents_of(source, reading, ReadingNotes())
    with _places_path(scan, number).open("rb") as places:
        for document in documents:
            place = places.read(1)
            if not place:
                raise InputError(
                    f"{source}: has more documents than before, expected text that does not change "
                    "meanwhile"
                )
            if place[0] != LEFT_OUT:
                yield SplitDocument(document.text, place[0] == HELD_OUT)


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


def _row(fingerprint: Fingerprint) -> tuple[int, int, int, bool]:
    """Return a fingerprint as a row of `FINGERPRINT`."""
    return fingerprint.text, fingerprint.identity, fingerprint.size, fingerprint.held_out


def read_counts(scan: Path, source_count: int) -> tuple[list[str], ReadingNotes]:
    """Read the digest of every source, and what was come upon in all of them.

    Args:
        scan: directory of what was counted.
        source_count: number of sources, which are numbered from 0.

    Raises:
        InputError: the first one that is unusable says why.
    """
    digests = []
    notes = ReadingNotes()
    for number in range(source_count):
        path = _count_path(scan, number)
        values = read_typed(dict[str, Any], path)
        if "error" in values:
            raise InputError(values["error"])
        check_fields(values, {"sha256": str, "notes": dict[str, Any]}, f"{path}:")
        digests.append(values["sha256"])
        notes.add(**values["notes"])
    return digests, notes


def _place(scan: Path, number: int, repeats: RepeatFinder) -> int:
    """Write a byte for each document: training, held out or left out; return how many are kept."""
    count = 0
    with _places_path(scan, number).open("wb") as file:
        for rows in _fingerprints(scan, number):
            places = bytearray()
            for text, identity, size, held_out in rows.tolist():
                placed = repeats.place(Fingerprint(text, identity, held_out, size))
                places.append(LEFT_OUT if placed is None else int(placed))
            file.write(places)
            count += len(places) - places.count(LEFT_OUT)
    return count


def _fingerprints(scan: Path, number: int) -> Iterator[np.ndarray]:
    """Yield the fingerprints of a source's documents, some at a time."""
    with _fingerprints_path(scan, number).open("rb") as file:
        while block := file.read(DOCUMENTS_HELD * FINGERPRINT.itemsize):
            yield np.frombuffer(block, FINGERPRINT)


def _block_starts(scan: Path, source_count: int, max_documents: int) -> Sequence[int]:
    """Return the number of the first document of every block, and of the one after the last."""
    starts = array("Q", [0])
    for block in cut(_all_sizes(scan, source_count), int, max_documents):
        starts.append(starts[-1] + len(block))
    return starts


def _all_sizes(scan: Path, source_count: int) -> Iterator[int]:
    """Yield the sizes of all documents that are not left out, source by source."""
    for number in range(source_count):
        with _places_path(scan, number).open("rb") as file:
            for rows in _fingerprints(scan, number):
                places = np.frombuffer(file.read(len(rows)), np.uint8)
                yield from rows["size"][places != LEFT_OUT].tolist()


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


def _fingerprints_path(scan: Path, number: int) -> Path:
    return scan / f"{number:05d}.fingerprints"


def _places_path(scan: Path, number: int) -> Path:
    return scan / f"{number:05d}.places"
