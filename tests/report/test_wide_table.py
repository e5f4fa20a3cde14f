"""Tables that are wider than the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from kdjax.report.wide_table import TableRow, WideTable

ROWS = [
    TableRow("scratch", ["3.1", "0.5"]),
    TableRow("teacher", ["2.0", "–"], reference=True),
    TableRow("majority", ["–", "0.4"], reference=True),
]


def drawn(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(WideTable("Scores", "arm", ["held-out loss", "accuracy"], ROWS))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_row_for_reference_is_left_out_of_a_part_in_which_it_has_no_value() -> None:
    first, second = drawn(30).split("accuracy")
    assert "teacher" in first and "majority" not in first
    assert "majority" in second and "teacher" not in second
    # The arms stand in every part.
    assert "scratch" in first and "scratch" in second


def test_row_for_reference_is_whole_where_all_columns_fit() -> None:
    lines = drawn(80).splitlines()
    assert [line.split() for line in lines if "teacher" in line] == [["teacher", "2.0", "–"]]
