"""Records of .jsonl and .json files, one at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from kdjax.data.text.streams import BUFFER, LINE_BYTES, TextError, kind, lines, mebibytes, opened

DECODER = json.JSONDecoder()
SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        where: file and line, key or row, for messages.
        key: its key in a .json mapping, else None.
        fields: its fields.
    """

    where: str
    key: str | None
    fields: dict[str, Any]


def records(path: Path) -> Iterator[Record]:
    """The records of a .jsonl or .json file, perhaps compressed; both records of a key that a
    mapping has twice.

    Raises:
        TextError: not UTF-8, malformed JSON, not a mapping or list of records, or one of more than
            `LINE_BYTES`.
    """
    if kind(path) == ".jsonl":
        for number, line in lines(path):
            if line.strip():
                where = f"{path}, line {number}"
                yield _record(where, None, _parse(line, where))
        return
    with opened(path) as file:
        text = _Json(path, file)
        opening = text.next_character()
        if opening == "{":
            for key in text.items("}"):
                text.expect(":")
                yield _record(f"{path}, key {key!r}", str(key), text.value())
        elif opening == "[":
            for number, value in enumerate(text.items("]")):
                yield _record(f"{path}, item {number}", None, value)
        else:
            raise TextError(
                f"{path}: holds a {type(text.value()).__name__}, expected a list or a mapping of "
                "records"
            )


class _Json:
    """A JSON text of which only what is being parsed is held.

    The standard library parses; a streaming one would alter halves of surrogate pairs without a
    word and not say lines.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._place = 0  # what is held, and how far it is parsed
        self._undecoded = b""
        self._decoded = 0  # the start of a character, and the bytes before it
        self._line = 1
        self._column = 1  # of the first character held
        self._ended = False

    def next_character(self) -> str:
        """The character after white space, which stays; empty at the end."""
        while True:
            self._place = self._after_space()
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._read(BUFFER)

    def expect(self, characters: str) -> str:
        """Takes the next character, one of these."""
        found = self.next_character()
        if not found or found not in characters:
            wanted = " or ".join(map(repr, characters))
            self._malformed(f"Expecting {wanted}", self._place)
        self._place += 1
        return found

    def items(self, closing: str) -> Iterator[Any]:
        """The values of a list, or the keys of a mapping, whose opening bracket is next, to the end
        of the text."""
        self._place += 1
        if self.next_character() == closing:
            self._place += 1
        else:
            while True:
                if closing == "}" and self.next_character() != '"':
                    self._malformed(
                        "Expecting property name enclosed in double quotes", self._place
                    )
                yield self.value()
                if self.expect(f",{closing}") == closing:
                    break
        if self.next_character():
            self._malformed("Extra data", self._place)

    def value(self) -> Any:
        """Parses the next value, reading on until it is whole."""
        self.next_character()
        while True:
            try:
                found, end = DECODER.raw_decode(self._text, self._place)
                if end < len(self._text) or self._ended:  # a number may go on
                    self._place = end
                    return found
            except json.JSONDecodeError as e:
                if self._ended:
                    self._malformed(e.msg, e.pos)
                if len(self._text) - self._place > LINE_BYTES:
                    self._malformed(
                        f"{e.msg}, or a record is longer than {mebibytes(LINE_BYTES)},", e.pos
                    )
            except (ValueError, RecursionError) as e:
                raise TextError(f"{self._path}: malformed JSON, {e}") from None
            self._read(max(BUFFER, len(self._text) - self._place))

    def _after_space(self) -> int:
        found = SPACE.match(self._text, self._place)
        return found.end() if found else self._place

    def _read(self, size: int) -> None:
        """Lets go of what is parsed and holds as many bytes more."""
        self._line, self._column = self._position(self._place)
        data = self._undecoded + self._file.read(size)
        self._ended = len(data) - len(self._undecoded) < size
        try:
            text, used = codecs.utf_8_decode(data, "strict", self._ended)
        except UnicodeDecodeError as e:
            where = self._decoded + e.start
            raise TextError(
                f"{self._path}: not UTF-8 at byte {where} ({e.reason}), expected UTF-8 text"
            ) from None
        first = self._decoded == 0
        self._text = self._text[self._place :] + text.removeprefix("\ufeff" if first else "")
        self._undecoded = data[used:]
        self._decoded = self._decoded + used
        self._place = 0

    def _position(self, place: int) -> tuple[int, int]:
        """Line and column of a character that is held."""
        newlines = self._text.count("\n", 0, place)
        column = place - self._text.rfind("\n", 0, place) if newlines else self._column + place
        return self._line + newlines, column

    def _malformed(self, message: str, place: int) -> NoReturn:
        line, column = self._position(place)
        raise TextError(f"{self._path}, line {line}: malformed JSON, {message} at column {column}")


def _record(where: str, key: str | None, value: Any) -> Record:
    if not isinstance(value, dict):
        raise TextError(f"{where}: is a {type(value).__name__}, expected a record with fields")
    return Record(where, key, value)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise TextError(f"{where}: malformed JSON, {e.msg} at column {e.colno}") from None
    except (ValueError, RecursionError) as e:
        raise TextError(f"{where}: malformed JSON, {e}") from None
