"""Records of .jsonl and .json files, one at a time."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, NoReturn

from kdjax.storage.files import unique_keys
from kdjax.text.streams import (
    BUFFER,
    LINE_BYTES,
    TextError,
    TextFile,
    lines,
    mebibytes,
    open_decompressed,
    uncompressed_suffix,
)

NESTING = 500
"""Lists and mappings within one another that are read for sure; Python's reader may go farther."""


def _integer(digits: str) -> int | Decimal:
    """Parse an integer of a JSON text, however long.

    Python refuses to turn more than some thousand digits into an int, and back; a Decimal has no
    such limit and takes no more than linear time.
    """
    if len(digits) <= sys.int_info.str_digits_check_threshold:
        return int(digits)
    return Decimal(digits)


DECODER = json.JSONDecoder(parse_int=_integer, object_pairs_hook=unique_keys)
SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        where: file and line, key or row, for messages.
        key: key of the record in a .json mapping, else None.
        fields: values by the fields' names.
        problem: why it is no record, where it is none; it then has no fields.
        columns: names of all columns of its table; `fields` may be only those that were asked for.
            Empty where it is of no table.
    """

    where: str
    key: str | None
    fields: dict[str, Any]
    problem: str = ""
    columns: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the fields that it has, also of those that were not asked for."""
        return self.columns or tuple(self.fields)


def check_once(names: Sequence[str], where: str) -> None:
    """Refuse a table of which a column that is used is there twice: which one is meant?

    Args:
        names: names of the used columns, as they are in the table.
        where: the table, for the message.

    Raises:
        TextError: a name is there twice.
    """
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise TextError(f"{where}: has {count} columns {name!r}, expected it once")


def records(path: TextFile, *, lenient: bool = False) -> Iterator[Record]:
    """Yield the records of a .jsonl or .json file, perhaps compressed.

    A mapping of records may have a key twice: both are yielded. A record may not.

    Args:
        path: the file.
        lenient: whether what is no record, such as a null among records, is yielded as a record
            with a problem; else it is refused.

    Raises:
        TextError: not UTF-8, malformed JSON, not a mapping or list of records, one with a field
            twice, one of more than `LINE_BYTES`, or nested too deeply.
    """
    if uncompressed_suffix(path) == ".jsonl":
        for number, line in lines(path):
            if line.strip():
                where = f"{path}, line {number}"
                yield _record(where, None, _parse(line, where), lenient)
        return
    with open_decompressed(path) as file:
        # Either {"key": {...}, ...} or [{...}, ...].
        text = _Json(path, file)
        opening = text.next_character()
        if opening == "{":
            for key in text.items("}"):
                text.expect(":")
                yield _record(f"{path}, key {key!r}", str(key), text.value(), lenient)
        elif opening == "[":
            for number, value in enumerate(text.items("]")):
                yield _record(f"{path}, item {number}", None, value, lenient)
        else:
            raise TextError(
                f"{path}: holds a {type(text.value()).__name__}, expected a list or a mapping of "
                "records"
            )


class _Json:
    """A JSON text of which only the part that is being parsed is held.

    The standard library parses; a streaming one would alter halves of surrogate pairs without a
    word and not say lines.
    """

    def __init__(self, path: TextFile, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        # The part that is held, and the index up to which it is parsed.
        self._text = ""
        self._index = 0
        # Bytes that are the start of a character, and the number of bytes before them.
        self._undecoded = b""
        self._decoded = 0
        # Line and column of the first character that is held.
        self._line = 1
        self._column = 1
        self._ended = False

    def next_character(self) -> str:
        """Return the character after white space, without taking it; empty at the end."""
        while True:
            if space := SPACE.match(self._text, self._index):
                self._index = space.end()
            if self._index < len(self._text) or self._ended:
                return self._text[self._index : self._index + 1]
            self._read(BUFFER)

    def expect(self, characters: str) -> str:
        """Take the next character after white space.

        Raises:
            TextError: it is none of `characters`, or the text ends.
        """
        character = self.next_character()
        if not character or character not in characters:
            expected = " or ".join(map(repr, characters))
            self._malformed(f"Expecting {expected}", self._index)
        self._index += 1
        return character

    def items(self, closing: str) -> Iterator[Any]:
        """Yield the values of a list, or the keys of a mapping, up to the end of the text.

        The opening bracket is the next character. After a key, the caller takes its value.
        """
        self._index += 1
        more = self.next_character() != closing
        if not more:
            self._index += 1
        while more:
            if closing == "}" and self.next_character() != '"':
                self._malformed("Expecting property name enclosed in double quotes", self._index)
            yield self.value()
            more = self.expect(f",{closing}") != closing
        if self.next_character():
            self._malformed("Extra data", self._index)

    def value(self) -> Any:
        """Parse the next value, reading on until it is whole."""
        self.next_character()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._index)
                # A number that ends where the part ends may go on.
                if end < len(self._text) or self._ended:
                    self._index = end
                    return value
            except json.JSONDecodeError as e:
                # Malformed, or cut short by the end of the part: more has to be read to tell.
                if self._ended:
                    self._malformed(e.msg, e.pos)
                if len(self._text) - self._index > LINE_BYTES:
                    self._malformed(
                        f"{e.msg}, or a record is longer than {mebibytes(LINE_BYTES)},", e.pos
                    )
            except RecursionError:
                line, _ = self._position(self._index)
                raise _too_deep(f"{self._path}, line {line}") from None
            except ValueError as e:  # a field twice
                line, _ = self._position(self._index)
                raise TextError(f"{self._path}, line {line}: {e}") from None
            self._read(max(BUFFER, len(self._text) - self._index))

    def _read(self, size: int) -> None:
        """Drop the text that is parsed, and read up to `size` bytes more."""
        self._line, self._column = self._position(self._index)
        data = self._undecoded + self._file.read(size)
        self._ended = len(data) - len(self._undecoded) < size
        try:
            text, used = codecs.utf_8_decode(data, "strict", self._ended)
        except UnicodeDecodeError as e:
            where = self._decoded + e.start
            raise TextError(
                f"{self._path}: not UTF-8 at byte {where} ({e.reason}), expected UTF-8 text"
            ) from None
        if self._decoded == 0:
            text = text.removeprefix("\ufeff")
        self._text = self._text[self._index :] + text
        self._undecoded = data[used:]
        self._decoded = self._decoded + used
        self._index = 0

    def _position(self, index: int) -> tuple[int, int]:
        """Return line and column of a character that is held."""
        newlines = self._text.count("\n", 0, index)
        if not newlines:
            return self._line, self._column + index
        return self._line + newlines, index - self._text.rfind("\n", 0, index)

    def _malformed(self, message: str, index: int) -> NoReturn:
        line, column = self._position(index)
        raise TextError(f"{self._path}, line {line}: malformed JSON, {message} at column {column}")


def _record(where: str, key: str | None, value: Any, lenient: bool) -> Record:
    if isinstance(value, dict):
        return Record(where, key, value)
    problem = f"is a {type(value).__name__}, expected a record with fields"
    if not lenient:
        raise TextError(f"{where}: {problem}")
    return Record(where, key, {}, problem)


def _parse(text: str, where: str) -> Any:
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as e:
        raise TextError(f"{where}: malformed JSON, {e.msg} at column {e.colno}") from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as e:  # a field twice
        raise TextError(f"{where}: {e}") from None


def _too_deep(where: str) -> TextError:
    return TextError(
        f"{where}: JSON that is nested more deeply than Python's reader goes, expected at most "
        f"{NESTING} lists and mappings within one another"
    )
