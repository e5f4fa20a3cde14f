"""Documents of a file of plain text: cut at blank lines, at line ends, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kdjax.text.reading_notes import GROUPED_LINES, MAC_LINES, ONE_DOCUMENT, ReadingNotes
from kdjax.text.streams import OLD_MAC, TextError, TextFile, lines, mebibytes

TextLayout = Callable[[TextFile, int, ReadingNotes], Iterator[tuple[int, str]]]
"""Yields a file's documents, each with the number of its first line. Takes the file, the most bytes
of a document, and the notes that what looks like another layout goes into."""


def paragraphs(path: TextFile, limit: int, notes: ReadingNotes) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs between blank lines.

    Args:
        path: file of text.
        limit: most bytes of a document.
        notes: notes that what looks like another layout goes into.

    Raises:
        TextError: a document is longer than the limit, or the file is no readable text.
    """
    shape = _Shape()
    paragraph: list[str] = []
    size = 0
    first = 1
    for number, line in lines(path):
        shape.add(line)
        if line.strip():
            if not paragraph:
                size = 0
                first = number
            paragraph.append(line.rstrip())
            # Refused before more of it is held: a character has at least a byte.
            size += len(line)
            if size > limit:
                expected = "shorter documents, separated by blank lines, or data.documents 'lines'"
                raise too_long_error(f"{path}, line {first}", limit, shape.hint() or expected)
        elif paragraph:
            yield first, "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield first, "\n".join(paragraph)
    if shape.has_old_mac_ends():
        notes.layouts[MAC_LINES] += 1
    elif shape.groups == 1 and shape.text_lines > 1:
        notes.layouts[ONE_DOCUMENT] += 1


def each_line(path: TextFile, limit: int, notes: ReadingNotes) -> Iterator[tuple[int, str]]:
    """Yield every line that is not blank.

    Args:
        path: file of text.
        limit: most bytes of a document.
        notes: notes that what looks like another layout goes into.

    Raises:
        TextError: a line is longer than the limit, or the file is no readable text.
    """
    shape = _Shape()
    for number, line in lines(path):
        shape.add(line)
        if line.strip():
            if len(line) > limit:
                raise too_long_error(
                    f"{path}, line {number}", limit, shape.hint() or "shorter lines"
                )
            yield number, line.rstrip()
    if shape.has_old_mac_ends():
        notes.layouts[MAC_LINES] += 1
    elif shape.groups > 1 and shape.text_lines >= 2 * shape.groups:
        notes.layouts[GROUPED_LINES] += 1


def whole(path: TextFile, limit: int, _: ReadingNotes) -> Iterator[tuple[int, str]]:
    """Yield the whole file as one document, without blank lines at its ends.

    Args:
        path: file of text.
        limit: most bytes of a document.

    Raises:
        TextError: the file is longer than the limit, or no readable text.
    """
    document: list[str] = []
    size = 0
    for _number, line in lines(path):
        size += len(line)
        if size > limit:
            expected = "shorter files, or data.documents 'paragraphs' or 'lines'"
            raise too_long_error(f"{path}, line 1", limit, expected)
        document.append(line.rstrip())
    text = "\n".join(document).strip("\n")
    if text.strip():
        yield 1, text


LAYOUTS: dict[str, TextLayout] = {"paragraphs": paragraphs, "lines": each_line, "files": whole}
"""By the values of `data.documents`."""


def too_long_error(where: str, limit: int, expected: str) -> TextError:
    """Return the error of a document of more than the limit in bytes, which begins there.

    Args:
        where: the file and the line where the document begins.
        limit: bytes that a document may have.
        expected: what was expected instead.
    """
    return TextError(
        f"{where}: here begins a document of more than {mebibytes(limit)}, expected {expected}"
    )


class _Shape:
    """Counts of a file's lines that tell its layout.

    Attributes:
        text_lines: lines that are not blank.
        blank_lines: lines that are.
        groups: runs of lines that are not blank.
    """

    def __init__(self) -> None:
        self.text_lines = 0
        self.blank_lines = 0
        self.groups = 0
        self._in_group = False
        self._returns = False

    def add(self, line: str) -> None:
        """Count a line."""
        has_text = bool(line.strip())
        self.text_lines += has_text
        self.blank_lines += not has_text
        self.groups += has_text and not self._in_group
        self._in_group = has_text
        self._returns = self._returns or "\r" in line.rstrip()

    def has_old_mac_ends(self) -> bool:
        """Return whether the file is one line, with \\r where its lines would end."""
        return self._returns and self.text_lines + self.blank_lines == 1

    def hint(self) -> str:
        """Return advice on old Mac line ends; empty where there are none."""
        if not self.has_old_mac_ends():
            return ""
        return f"lines that end at \\n (it has {OLD_MAC})"
