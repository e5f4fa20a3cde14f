"""The tables of a page, read off its HTML, as CSV, Markdown and LaTeX.

What is read off the page is what the page shows: no table is forgotten, and none says otherwise.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

Row = list[str]
"""The cells of a row, as text."""
_VOID = ("meta", "br", "hr", "img", "input", "link")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "\N{MINUS SIGN}": "$-$",
    "–": "--",
    "→": r"$\rightarrow$",
    "‖": r"$\|$",
    "′": "$'$",
}
"""Characters that LaTeX reads otherwise, or not at all, and how it writes them."""


@dataclass
class PageTable:
    """A table of a page.

    Attributes:
        section: heading of the section that it stands in.
        caption: its caption; empty where it has none.
        head: head of each column.
        rows: all rows below the head, as long as the head.
    """

    section: str
    caption: str = ""
    head: Row = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Return the caption, or the section's heading where there is none."""
        return self.caption or self.section


def tables_of(html: str) -> list[PageTable]:
    """Return every table of a page, in its order.

    Args:
        html: the page.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.tables


def as_csv(table: PageTable) -> str:
    """Return a table as CSV, with its heads in the first line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.head, *table.rows])
    return text.getvalue()


def as_markdown(table: PageTable) -> str:
    """Return a table as Markdown, its title above it; numbers stand to the right."""
    lines = [f"**{table.title}**", "", _pipes(table.head)]
    lines.append("|".join(["", "---", *["--:"] * (len(table.head) - 1), ""]))
    lines += [_pipes(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def as_latex(table: PageTable) -> str:
    """Return a table as LaTeX for the package booktabs."""
    columns = "l" + "r" * (len(table.head) - 1)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _ampersands(table.head),
        r"\midrule",
        *map(_ampersands, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    escaped = [cell.replace("\\", r"\\").replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _ampersands(cells: Iterable[str]) -> str:
    """Return a row of a LaTeX table."""
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    """Return a text as LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


class _Reader(HTMLParser):
    """Reads the tables of a page; what screen readers pass over is left out."""

    def __init__(self) -> None:
        """Begin before the page."""
        super().__init__()
        self.tables: list[PageTable] = []
        self._open: list[tuple[str, bool]] = []
        self._section = ""
        self._row: Row | None = None
        self._span = 1
        self._in_head = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """Open an element: a table, its head, a row or a cell, or one that is passed over."""
        attributes = dict(attrs)
        if tag not in _VOID:
            is_hidden = attributes.get("aria-hidden") == "true" or tag in ("style", "script", "svg")
            self._open.append((tag, is_hidden))
        if tag == "h2":
            self._section = ""
        elif tag == "table":
            self.tables.append(PageTable(self._section))
        elif tag in ("thead", "tbody"):
            self._in_head = tag == "thead"
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th") and self._row is not None:
            self._row.append("")
            self._span = int(attributes.get("colspan") or 1)
        elif tag in ("small", "br") and self._row:
            # What stands below a figure follows it.
            self._row[-1] += "; "

    def handle_endtag(self, tag: str) -> None:
        """Close an element; a row joins its table."""
        self._open.pop()
        if tag in ("td", "th") and self._row is not None:
            # Only headings and notes stand over several columns: the others are empty.
            self._row += [""] * (self._span - 1)
        elif tag == "tr" and self._row is not None:
            cells = [_clean(cell) for cell in self._row]
            table = self.tables[-1]
            if self._in_head and not table.head:
                table.head = cells
            else:
                table.rows.append(cells)
            self._row = None
        elif tag == "caption":
            self.tables[-1].caption = _clean(self.tables[-1].caption)
        elif tag == "h2":
            self._section = _clean(self._section)

    def handle_data(self, data: str) -> None:
        """Add text to the open cell, caption or heading."""
        if any(is_hidden for _, is_hidden in self._open):
            return
        names = {tag for tag, _ in self._open}
        if self._row:
            self._row[-1] += data
        elif "caption" in names:
            self.tables[-1].caption += data
        elif "h2" in names:
            self._section += data


def _clean(text: str) -> str:
    """Return a cell's text without line breaks and without separators of nothing."""
    parts = [re.sub(r"\s+", " ", part).strip() for part in text.split("; ")]
    return "; ".join(filter(None, parts))
