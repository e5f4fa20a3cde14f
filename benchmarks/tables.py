"""Tables of figures: Markdown, and the same on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def row(cells: Iterable[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def head(header: Sequence[str]) -> str:
    """Return the first two lines of a Markdown table: the columns' names, and the rule."""
    return f"{row(header)}\n{'|---' * len(header)}|"


def markdown(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join([head(header), *map(row, rows)])


def console(width: int) -> Console:
    """Return the terminal; where the output is no terminal, one of this width."""
    return Console(width=None if sys.stdout.isatty() else width)


def show(
    console: Console,
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[str],
) -> None:
    """Print a table on a terminal.

    Args:
        console: the terminal.
        title: what stands above the table.
        header: the columns' names.
        rows: cells of each row.
        words: the columns that hold words; all others hold figures and are set flush right.
    """
    # Figures are read by their last digits, words from their first letters.
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in words else "right")
    for cells in rows:
        table.add_row(*cells)
    console.print(table)
