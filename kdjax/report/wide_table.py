"""A table for the terminal that is drawn as several where its columns do not fit beside one
another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

HEAD_WIDTH = 16
"""Columns of the terminal that a column's head takes at most; a longer one goes on below."""
GAP = 3
"""Columns of the terminal between two columns of a table."""
NOTHING = "–"
"""What a cell holds where there is nothing to say."""
EDGES = 2
"""Columns of the terminal beside a table."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        name: what the row is of; it stands in each part of the table.
        cells: texts of the other columns, of one line or several.
        reference: whether it is for reference: below a line, and faint; left out of a part in
            which it has no value.
    """

    name: str
    cells: Sequence[str]
    reference: bool = False


@dataclass(frozen=True)
class WideTable:
    """A table of which every cell is whole, however narrow the terminal is.

    Attributes:
        caption: what the table shows.
        name_head: head of the column of names.
        heads: heads of the other columns.
        rows: the rows, those for reference last.
    """

    caption: str
    name_head: str
    heads: Sequence[str]
    rows: Sequence[TableRow]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Draw as many tables as the terminal's width asks for, each with the rows' names."""
        yield Text(f"\n{self.caption}", style="bold")
        names = [self.name_head, *(row.name for row in self.rows)]
        room = options.max_width - EDGES - max(map(_width, names))
        # Columns are taken as long as they fit, at least one a table.
        parts: list[list[int]] = []
        width = 0
        for number in range(len(self.heads)):
            needed = self._column_width(number) + GAP
            if not parts or width + needed > room:
                parts.append([])
                width = 0
            parts[-1].append(number)
            width += needed
        for part in parts:
            yield self._draw(part)

    def _column_width(self, number: int) -> int:
        """Return the columns of the terminal that a column of the table takes."""
        cells = max((_width(row.cells[number]) for row in self.rows), default=0)
        return max(cells, min(HEAD_WIDTH, _width(self.heads[number])))

    def _draw(self, part: Sequence[int]) -> Table:
        """Draw some columns of the table."""
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        drawn.add_column(self.name_head, no_wrap=True)
        for number in part:
            width = self._column_width(number)
            head = Text(self.heads[number])
            drawn.add_column(head, justify="right", overflow="fold", width=width)
        is_reference = False
        for row in self.rows:
            cells = [row.cells[number] for number in part]
            # Of what these columns have nothing for reference, the first part says enough.
            if row.reference and all(cell == NOTHING for cell in cells):
                continue
            if row.reference and not is_reference:
                drawn.add_section()
            is_reference = row.reference
            # Text, not markup: a name may hold square brackets.
            texts = [Text(cell) for cell in cells]
            drawn.add_row(Text(row.name), *texts, style="dim" if row.reference else "")
        return drawn


def _width(text: str) -> int:
    """Return the length of a text's longest line."""
    return max(map(len, text.split("\n")))
