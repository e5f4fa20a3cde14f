"""What a reader of text came upon and read on: records without a text, files that look as if they
had another layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kdjax.text.streams import OLD_MAC

EMPTY = "empty"
"""Kind of a record whose text is white space alone; such a one is always left out."""
UNUSABLE = (EMPTY, "null", "absent", "not text", "not a record", "invalid Unicode", "too long")
"""Kinds of records that have no usable text: nothing in it, null in it, no such field, a number or
a list in it, no fields at all, half a surrogate pair, more than `document.DOCUMENT_BYTES`."""

ONE_DOCUMENT = "no blank line"
"""Kind of a text file of several lines that is a single document."""
MAC_LINES = "old Mac line ends"
"""Kind of a text file with \\r and without \\n."""
GROUPED_LINES = "groups of lines"
"""Kind of a text file that is read by lines and has blank lines between groups of them."""
_HINTS = {
    ONE_DOCUMENT: (
        "several lines and no blank line, so each is one document: data.documents 'lines' makes "
        "each line one, 'files' says that a file is one"
    ),
    MAC_LINES: OLD_MAC,
    GROUPED_LINES: (
        "blank lines between groups of lines, and each line is a document: data.documents "
        "'paragraphs' makes each group one"
    ),
}


@dataclass
class ReadingNotes:
    """Counts that grow while text is read.

    Attributes:
        unusable: kind of `UNUSABLE` -> records that were left out.
        layouts: kind of layout -> files that look like it.
    """

    unusable: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)

    def add(self, unusable: Mapping[str, int], layouts: Mapping[str, int]) -> None:
        """Add the counts of another reader."""
        self.unusable.update(unusable)
        self.layouts.update(layouts)


def unusable_in_words(unusable: Mapping[str, int]) -> str:
    """Return the number of records left out, with reasons, in words; empty where none was."""
    kinds = [f"{unusable[kind]:,} {kind}" for kind in UNUSABLE if unusable.get(kind)]
    if not kinds:
        return ""
    total = sum(unusable.values())
    records = "record" if total == 1 else "records"
    return f"{total:,} {records} without a usable text left out: {', '.join(kinds)}"


def layout_hints(layouts: Mapping[str, int]) -> Iterable[str]:
    """Yield a sentence for each layout that files look like."""
    for kind, hint in _HINTS.items():
        count = layouts.get(kind, 0)
        if count:
            files = "file has" if count == 1 else "files have"
            yield f"{count:,} text {files} {hint}"
