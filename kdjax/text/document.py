"""Documents of a corpus, made of files of plain text or of records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdjax.text.layouts import LAYOUTS, too_long_error
from kdjax.text.reading_notes import EMPTY, ReadingNotes
from kdjax.text.records import Record
from kdjax.text.streams import TextError, TextFile, check_characters

if TYPE_CHECKING:  # a worker starts sooner without the config library
    from kdjax.config import DataConfig

DOCUMENT_BYTES = 8 * 2**20
"""A longer document is refused: a tokenizer takes about a hundred bytes of memory for each of its
bytes."""


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

    @property
    def record_fields(self) -> tuple[str, ...]:
        """Return the fields of a record that are read: its texts, and what may identify it."""
        return (*self.text_fields, "id", "title")

    @classmethod
    def from_config(cls, config: DataConfig) -> ReadSettings:
        """Return the settings of a recipe's text."""
        fields = config.text_field
        if isinstance(fields, str):
            fields = (fields,)
        return cls(tuple(fields), config.documents, config.unusable == "skip")


def plain_text_documents(
    path: TextFile, settings: ReadSettings, notes: ReadingNotes
) -> Iterator[Document]:
    """Yield the documents of a file of plain text, cut as the settings say.

    Args:
        path: the file, perhaps compressed.
        settings: which layout it has.
        notes: notes that what looks like another layout goes into.

    Raises:
        TextError: a document of more than `DOCUMENT_BYTES`, or the file is no readable text.
    """
    for line, text in LAYOUTS[settings.layout](path, DOCUMENT_BYTES, notes):
        document = Document(text, text)
        _check_size(document, f"{path}, line {line}")
        yield document


class _UnusableRecord(TextError):
    """A record without a usable text; `kind` is one of `kdjax.text.reading_notes.UNUSABLE`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def record_documents(
    stream: Iterable[Record], settings: ReadSettings, notes: ReadingNotes
) -> Iterator[Document]:
    """Yield the documents of records: each text with its identity.

    Args:
        stream: records of a source, in order.
        settings: which fields hold the text, and whether unusable records are left out.
        notes: counts of records that are left out; they grow while the source is read.

    Raises:
        TextError: a record without a usable text, where such are refused.
    """
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
