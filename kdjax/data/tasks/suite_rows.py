"""Rows of a suite's tasks, made of records with named fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.raw import RawRow, ReadRows
from kdjax.data.tasks.tables import table_rows
from kdjax.errors import InputError, nearest
from kdjax.text.records import Record
from kdjax.text.streams import check_characters

LABEL = "label"
HIDDEN = (-1, "-1")
"""Labels of rows whose label is hidden: as a number, or as text."""
SPLIT_NAMES = {"train": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}
"""Kind of split -> its names in files."""
TextParts = tuple[tuple[str, tuple[str, ...]], ...]
"""For each text a template, and the fields that fill it."""


def whole_columns(task: SuiteTask) -> TextParts:
    """Return the template and the field of each text of a task whose texts are columns as they
    are."""
    return tuple(("{}", (column,)) for column in task.columns)


def record_reader(files: Sequence[Path], parts: TextParts) -> Callable[[], Iterator[Record]]:
    """Return a function that reads the records of files, one after another.

    Args:
        files: files of a split.
        parts: the texts, of whose fields the columns are read.
    """
    columns = {LABEL}
    for _, names in parts:
        columns.update(names)

    def read() -> Iterator[Record]:
        for path in files:
            yield from table_rows(path, columns)

    return read


def rows_reader(
    task: SuiteTask, parts: TextParts, read: Callable[[], Iterator[Record]]
) -> ReadRows:
    """Return a function that reads a split's rows.

    Args:
        task: task of the rows.
        parts: template and fields of each text.
        read: reads the split's records. The rows raise an InputError for one that lacks a field, or
            has a text that is none.
    """

    def rows(_: Counter[str]) -> Iterator[RawRow]:
        for record in read():
            texts = []
            for template, names in parts:
                fields = [_text(record, name, task, parts) for name in names]
                texts.append(template.format(*fields))
            yield RawRow(record.where, tuple(texts), _label(record.fields.get(LABEL), task))

    return rows


def expected_fields(task: SuiteTask, parts: TextParts) -> str:
    """Return the fields of a task's records, for messages."""
    names: list[str] = []
    for _, fields in parts:
        names += fields
    return f"the fields of {task.title}: {', '.join((*names, LABEL))}"


def _text(record: Record, name: str, task: SuiteTask, parts: TextParts) -> str:
    """Return a field that holds text.

    Raises:
        InputError: it is missing, or no text.
    """
    value = record.fields.get(name)
    if isinstance(value, str):
        check_characters(value, record.where)
        return value
    if name not in record.fields:
        hint = nearest(name, record.names)
        expected = expected_fields(task, parts)
        raise InputError(f"{record.where}: has no {name!r}{hint}, expected {expected}")
    raise InputError(
        f"{record.where}: {name!r} is {value!r:.60} ({type(value).__name__}), expected text"
    )


def _label(value: Any, task: SuiteTask) -> str | None:
    """Return a label as text: a class by its name; None where it is hidden or absent."""
    if value is None or value in HIDDEN:
        return None
    if isinstance(value, bool):
        value = int(value)
    label = str(value)
    if not task.classes:
        return label
    return task.class_of(label)
