"""The preparation as Apache Beam pipelines, for a corpus that outgrows one machine; the same bytes
as `prepare` makes.

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
    Part,
    cut,
    finished,
    make_part,
    read_part,
)
from kdjax.data.prepare.preparation import SCAN, Preparation, check_ours, check_plan, claimed
from kdjax.data.text import sources
from kdjax.data.text.sources import Document, Source
from kdjax.errors import InputError
from kdjax.files import read_json, write_json

if TYPE_CHECKING:
    from kdjax.config import DataConfig

IN_PROCESS = "FnApiRunner"
"""Where no runner is named. Beam's own choice would look for a program to download first."""
SIZES_HELD = 2**16

Piece = tuple[int, tuple[int, list[Document]]]
"""Consecutive documents of a block: its index, the number of the first document, and the
documents."""


def prepare(
    config: DataConfig, tokenizer: Path | None, out: Path, options: Sequence[str] = ()
) -> Manifest:
    """Prepares a corpus with Beam: what `kdjax.data.prepare.local.prepare` makes, byte for byte.

    Interrupted, it counts again and makes only the blocks that are missing; either way to prepare
    goes on with what the other began. A worker holds the text of one block (`blocks.BLOCK_BYTES`).

    Args:
        config: files and settings; `workers` is the runner's business.
        tokenizer: a tokenizer.json; None: one is trained first, as `data.tokenizer` says, by this
            process, which reads all of the text for it, and kept in `out`.
        out: the corpus's directory.
        options: Beam's own, as on a command line: `--runner=...`. Without a runner, everything runs
            in this process and its memory: enough to try a pipeline out.

    Raises:
        InputError: as `kdjax.data.prepare.local.prepare`; options or a runner that Beam does not
            have.
    """
    preparation = Preparation.of(config, tokenizer, out)
    runner = _options(options)
    fields = preparation.text_fields
    with claimed(out), _scanning(out) as scan:
        count = "count documents" >> beam.Map(functools.partial(count_documents, scan, fields))
        _run(runner, list(enumerate(preparation.sources)), count)
        counted = _counted(scan, preparation.sources)
        plan = preparation.plan([digest for digest, _ in counted])
        check_plan(out, plan)
        preparation = preparation.with_tokenizer()
        done = preparation.done()
        if done is not None:
            return done
        starts = _starts(scan, len(counted), preparation.most)
        firsts = itertools.accumulate((documents for _, documents in counted), initial=0)
        numbered = list(zip(preparation.sources, firsts, strict=False))
        read = "read documents" >> beam.FlatMap(
            functools.partial(read_documents, out, fields, starts)
        )
        make = "make shards" >> beam.Map(functools.partial(make_shards, preparation.blocks, starts))
        _run(runner, numbered, read, beam.GroupByKey(), make)
        return preparation.finish(plan, [_part(out, index) for index in range(len(starts) - 1)])


def count_documents(scan: Path, text_fields: Sequence[str], numbered: tuple[int, Source]) -> None:
    """Writes how many documents a source has, the bytes of each, and the source's digest; or why it
    is unusable.

    Args:
        scan: the directory to write to.
        text_fields: of a record's fields, the first one present holds the text.
        numbered: the source's place among all, and the source.
    """
    number, source = numbered
    documents = 0
    beside = scan / f".{number}.{uuid.uuid4().hex}.tmp"
    try:
        with beside.open("wb") as file:
            found = sources.documents_of(source, text_fields)
            while held := array(
                "I", (document.size for document in itertools.islice(found, SIZES_HELD))
            ):
                held.tofile(file)
                documents += len(held)
        beside.replace(_sizes(scan, number))
        write_json(_count(scan, number), {"sha256": sources.digest(source), "documents": documents})
    except InputError as e:
        write_json(_count(scan, number), {"error": str(e)})
    except OSError as e:
        raise InputError(
            f"{beside}: cannot be written ({e.strerror}), expected a writable directory with room"
        ) from None


def read_documents(
    directory: Path, text_fields: Sequence[str], starts: Sequence[int], numbered: tuple[Source, int]
) -> Iterator[Piece]:
    """A source's documents by block; blocks that are finished are passed over.

    Args:
        directory: of the corpus.
        text_fields: of a record's fields, the first one present holds the text.
        starts: see `_starts`.
        numbered: the source and the number of its first document.
    """
    source, first = numbered
    found = enumerate(sources.documents_of(source, text_fields), first)
    for index, group in itertools.groupby(found, lambda pair: bisect_right(starts, pair[0]) - 1):
        if index == len(starts) - 1:
            raise InputError(
                f"{source}: has more documents than before, expected text that does not change "
                "meanwhile"
            )
        if finished(directory, index, _documents(starts, index)) is None:
            pairs = list(group)
            yield index, (pairs[0][0], [document for _, document in pairs])


def make_shards(
    settings: BlockSettings,
    starts: Sequence[int],
    block: tuple[int, Iterable[tuple[int, list[Document]]]],
) -> None:
    """Makes a block's part of its documents, which come in several pieces where it spans
    sources."""
    index, pieces = block
    in_order = sorted(pieces, key=lambda piece: piece[0])
    documents = list(itertools.chain.from_iterable(piece for _, piece in in_order))
    expected = _documents(starts, index)
    if len(documents) != expected:
        raise InputError(
            f"block {index}: has {len(documents)} documents and {expected} were counted, expected "
            "text that does not "
            "change meanwhile"
        )
    make_part(Block(index, documents, settings))


def _options(words: Sequence[str]) -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # a page of usage
            options = PipelineOptions(list(words))
            standard = options.view_as(StandardOptions)
            standard.runner = standard.runner or IN_PROCESS
            options.get_all_options()  # parses them
            beam.Pipeline(options=options)
    except (ImportError, ValueError, SystemExit) as e:
        reason = (
            said.getvalue().strip().rpartition("\n")[2] if isinstance(e, SystemExit) else str(e)
        )
        raise InputError(
            f"--beam -- {' '.join(words)}: {reason}; expected Apache Beam's pipeline options"
        ) from None
    return options


@contextlib.contextmanager
def _scanning(out: Path) -> Iterator[Path]:
    """An empty directory for what is counted, gone at the end, also of an error."""
    check_ours(out)
    scan = out / SCAN
    shutil.rmtree(scan, ignore_errors=True)
    scan.mkdir()
    try:
        yield scan
    finally:
        shutil.rmtree(scan, ignore_errors=True)


def _run(options: Any, items: Sequence[Any], *steps: Any) -> None:
    """Runs transforms one after another over items, in parallel.

    Raises:
        InputError: one was raised by a worker.
    """
    pipeline = beam.Pipeline(options=options)
    # Reshuffled: a runner would otherwise do all that follows where the items were created.
    found = pipeline | beam.Create(items, reshuffle=False) | beam.Reshuffle()
    for step in steps:
        found = found | step
    try:
        pipeline.run().wait_until_finish()
    except Exception as e:
        message = _raised_by_worker(e)
        if message is None:
            raise
        raise InputError(message) from None


def _raised_by_worker(error: Exception) -> str | None:
    """The message of an InputError that a worker raised; runners wrap it, or hand on its
    traceback."""
    line = re.search(r"^kdjax\.[\w.]+Error: (.*)$", str(error), re.MULTILINE)
    message = str(error) if isinstance(error, InputError) else line and line[1]
    return message and message.partition(" [while running ")[0]


def _counted(scan: Path, found: Sequence[Source]) -> list[tuple[str, int]]:
    """Digest and documents of every source.

    Raises:
        InputError: the first one that is unusable says why.
    """
    counted = []
    for number in range(len(found)):
        values = read_json(_count(scan, number))
        if "error" in values:
            raise InputError(values["error"])
        counted.append((values["sha256"], values["documents"]))
    return counted


def _starts(scan: Path, sources_: int, most: int) -> Sequence[int]:
    """The number of the first document of every block, and of the one after the last."""
    starts = array("Q", [0])
    for block in cut(_all_sizes(scan, sources_), int, most):
        starts.append(starts[-1] + len(block))
    return starts


def _all_sizes(scan: Path, sources_: int) -> Iterator[int]:
    for number in range(sources_):
        with _sizes(scan, number).open("rb") as file:
            while held := file.read(SIZES_HELD * array("I").itemsize):
                yield from array("I", held)


def _documents(starts: Sequence[int], index: int) -> int:
    return starts[index + 1] - starts[index]


def _part(out: Path, index: int) -> Part:
    part = read_part(out, index)
    if part is None:
        raise InputError(
            f"{out}: block {index} is missing, expected the workers to see the same directory"
        )
    return part


def _count(scan: Path, number: int) -> Path:
    return scan / f"{number:05d}.json"


def _sizes(scan: Path, number: int) -> Path:
    return scan / f"{number:05d}.sizes"
