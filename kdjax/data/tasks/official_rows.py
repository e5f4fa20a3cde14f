"""Rows of GLUE's official files: the columns of texts and label, and which rows are examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.official_sizes import SIZES
from kdjax.data.tasks.raw import RawRow
from kdjax.data.tasks.tables import tsv_rows
from kdjax.errors import InputError, nearest
from kdjax.text.records import check_once

LACKS_COLUMNS = "lack columns"
NO_GOLD = "have no gold label"


@dataclass(frozen=True)
class Columns:
    """Columns of a task's files.

    Attributes:
        texts: columns of the texts.
        label: column of the label.
        header: columns of labelled files that begin without a header; empty: they have one.
        skips_short: whether rows that lack columns are left out; else they are refused.
    """

    texts: tuple[str, ...]
    label: str
    header: tuple[str, ...] = ()
    skips_short: bool = False


_SENTENCES = ("sentence1", "sentence2")
COLUMNS = {
    "cola": Columns(("sentence",), "label", header=("source", "label", "mark", "sentence")),
    "sst2": Columns(("sentence",), "label"),
    "mrpc": Columns(("#1 String", "#2 String"), "Quality"),
    # Some questions hold a line end: what stands before it and after it is no row.
    "qqp": Columns(("question1", "question2"), "is_duplicate", skips_short=True),
    "stsb": Columns(_SENTENCES, "score"),
    "mnli": Columns(_SENTENCES, "gold_label"),
    "qnli": Columns(("question", "sentence"), "label"),
    "rte": Columns(_SENTENCES, "label"),
    "wnli": Columns(_SENTENCES, "label"),
}
"""Name of a task -> columns of its files."""


def official_rows(
    path: Path, task: SuiteTask, labelled: bool, left_out: Counter[str]
) -> Iterator[RawRow]:
    """Yield the rows of a file.

    Args:
        path: the file.
        task: task whose columns it has.
        labelled: whether its labels are read; those of a test file are not.
        left_out: counts of rows that are left out.

    Raises:
        InputError: it lacks a column, or a row has another number of columns than the header.
    """
    for row, _ in _rows_with_fields(path, task, labelled, left_out):
        yield row


def mrpc_rows(
    path: Path, ids: Path, task: SuiteTask, dev: bool, left_out: Counter[str]
) -> Iterator[RawRow]:
    """Yield the rows of MRPC's one labelled file that are dev rows, or those that are not.

    Args:
        path: msr_paraphrase_train.txt.
        ids: the file that lists the dev rows.
        task: MRPC.
        dev: whether the dev rows are yielded, or the others.
        left_out: reason -> number of rows left out; grows while rows are read.

    Raises:
        InputError: a file lacks a column, a row has another number of columns than the header, or
            the list names a row that is not there, or none.
    """
    dev_ids: dict[tuple[str, ...], int] = {}
    for number, row in tsv_rows(ids):
        dev_ids[tuple(row[:2])] = number
    if not dev_ids:
        raise InputError(f"{ids}: has no rows, expected the two ids of each dev row of {path.name}")
    without_row = dict(dev_ids)
    rows = 0
    for raw_row, fields in _rows_with_fields(path, task, True, left_out):
        rows += 1
        key = (fields.get("#1 ID", ""), fields.get("#2 ID", ""))
        without_row.pop(key, None)
        if (key in dev_ids) == dev:
            yield raw_row
    # A list that was cut would move dev rows into training.
    size = SIZES[task.name]
    is_whole = rows == size.train + sum(size.dev)
    if is_whole and len(dev_ids) != sum(size.dev):
        raise InputError(
            f"{ids}: has {len(dev_ids):,} ids for the {rows:,} rows of {path.name}, expected "
            f"GLUE's {sum(size.dev):,}"
        )
    if without_row:
        row_ids, number = next(iter(without_row.items()))
        raise InputError(
            f"{ids}, line {number}: no row of {path.name} has the ids {' and '.join(row_ids)}, "
            f"expected one for each of its {len(dev_ids):,} lines; {path.name} has {rows:,} rows"
        )


def _rows_with_fields(
    path: Path, task: SuiteTask, labelled: bool, left_out: Counter[str]
) -> Iterator[tuple[RawRow, dict[str, str]]]:
    """Yield rows as `official_rows`, with all of their fields."""
    columns = COLUMNS[task.name]
    rows = tsv_rows(path)
    header = list(columns.header)
    if not header or not labelled:
        _, header = next(rows, (1, []))
    needed = list(columns.texts)
    if labelled:
        needed.append(columns.label)
    for name in needed:
        if name not in header:
            hint = nearest(name, header)
            raise InputError(
                f"{path}, line 1: has no column {name!r}{hint}, expected the columns of GLUE's "
                f"{task.title}: {', '.join(needed)}"
            )
    check_once([name for name in header if name in needed], f"{path}, line 1")
    for number, row in rows:
        if len(row) < len(header) and columns.skips_short:
            left_out[LACKS_COLUMNS] += 1
            continue
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: has {len(row)} columns, expected {len(header)}"
            )
        fields = dict(zip(header, row, strict=True))
        label = None
        if labelled:
            label = task.class_of(fields[columns.label])
            # Annotators that did not agree: as elsewhere, such rows are no examples.
            if label == "-" and task.name == "mnli":
                left_out[NO_GOLD] += 1
                continue
        texts = tuple(fields[name] for name in columns.texts)
        yield RawRow(f"{path}, line {number}", texts, label), fields
