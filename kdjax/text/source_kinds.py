"""The kinds of sources, a row each: how one is recognised, found, checked and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.text import parquet, streams, tfds
from kdjax.text.document import Document, ReadSettings, plain_text_documents, record_documents
from kdjax.text.reading_notes import ReadingNotes
from kdjax.text.records import records
from kdjax.text.streams import COMPRESSIONS, TextFile, uncompressed_suffix
from kdjax.text.tfds import TfdsSplit

Source = TextFile | TfdsSplit
"""A file, here or at a URL, or a split of a data set that TFDS prepared. All but a `Path` have a
method `digest` that says what identifies their content."""
ReadDocuments = Callable[[Any, ReadSettings, ReadingNotes], Iterator[Document]]
"""Yields the documents of a source, one at a time, and nothing where it has none. The notes count
what is left out or looks strange; they grow while it is read."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file, recognised by its suffix, wherever it lies.

    Attributes:
        suffixes: endings of its files' names, in lower case.
        expected: its suffixes in words, for messages.
        is_compressible: whether a suffix of `COMPRESSIONS` may follow.
        check_readable: raises an InputError where a library is missing to read a file.
        read: reads a file's documents.
    """

    suffixes: tuple[str, ...]
    expected: str
    is_compressible: bool
    check_readable: Callable[[TextFile], None]
    read: ReadDocuments

    def recognises(self, source: Source) -> bool:
        """Return whether a source is of this kind."""
        if not isinstance(source, TextFile):
            return False
        suffix = source.suffix.lower()
        if self.is_compressible:
            suffix = uncompressed_suffix(source)
        return suffix in self.suffixes


@dataclass(frozen=True)
class DatasetKind:
    """A kind of data set that is no file, recognised by the beginning of its name.

    Attributes:
        prefix: beginning of its names; one of `kdjax.storage.prefixes.NAME_PREFIXES`.
        source_type: class of its sources.
        find: returns the source of a name, or raises an InputError: there is none, or a library is
            missing to read it.
        directory_hint: says what to write for a directory that was named as if it were a file;
            empty where the directory is of another kind.
        read: reads a source's documents.
    """

    prefix: str
    source_type: type
    find: Callable[[str], Source]
    directory_hint: Callable[[Path, str], str]
    read: ReadDocuments

    def recognises(self, source: Source) -> bool:
        """Return whether a source is of this kind."""
        return isinstance(source, self.source_type)


def _read_json(source: TextFile, settings: ReadSettings, notes: ReadingNotes) -> Iterator[Document]:
    stream = records(source, lenient=settings.skip_unusable)
    return record_documents(stream, settings, notes)


def _read_parquet(
    source: TextFile, settings: ReadSettings, notes: ReadingNotes
) -> Iterator[Document]:
    stream = parquet.rows(source, settings.record_fields)
    return record_documents(stream, settings, notes)


def _read_tfds(
    source: TfdsSplit, settings: ReadSettings, notes: ReadingNotes
) -> Iterator[Document]:
    stream = tfds.examples(source, settings.record_fields)
    return record_documents(stream, settings, notes)


FILE_KINDS = (
    FileKind(
        # All but the first are of splits, as in BabyLM's corpus.
        suffixes=(".txt", ".train", ".dev", ".test"),
        expected=".txt (or .train, .dev, .test)",
        is_compressible=True,
        check_readable=streams.check_readable,
        read=plain_text_documents,
    ),
    FileKind(
        suffixes=(".jsonl", ".json"),
        expected=".jsonl or .json",
        is_compressible=True,
        check_readable=streams.check_readable,
        read=_read_json,
    ),
    FileKind(
        suffixes=(parquet.SUFFIX,),
        expected=parquet.SUFFIX,
        is_compressible=False,
        check_readable=parquet.check_readable,
        read=_read_parquet,
    ),
)
DATASET_KINDS = (
    DatasetKind(
        prefix=tfds.PREFIX,
        source_type=TfdsSplit,
        find=tfds.find,
        directory_hint=tfds.directory_hint,
        read=_read_tfds,
    ),
)


def _expected_files() -> str:
    """Return what files are read, in words."""
    compressible = [kind.expected for kind in FILE_KINDS if kind.is_compressible]
    others = [kind.expected for kind in FILE_KINDS if not kind.is_compressible]
    compressions = f"{', '.join(COMPRESSIONS[:-1])} or {COMPRESSIONS[-1]}"
    return (
        f"{', '.join(compressible)} files, as they are, {compressions}, or {' or '.join(others)} "
        "files"
    )


EXPECTED = _expected_files()
"""The kinds of files, for messages."""


def dataset_kind(name: str) -> DatasetKind | None:
    """Return the kind of data set that a name begins like; None where it is of files."""
    return next((kind for kind in DATASET_KINDS if name.startswith(kind.prefix)), None)


def file_kind(file: TextFile) -> FileKind | None:
    """Return the kind of a file; None where no kind has its suffix."""
    return next((kind for kind in FILE_KINDS if kind.recognises(file)), None)


def reader(source: Source) -> ReadDocuments:
    """Return what reads a source that was found."""
    kinds = (*FILE_KINDS, *DATASET_KINDS)
    return next(kind.read for kind in kinds if kind.recognises(source))
