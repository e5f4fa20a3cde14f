"""Rows of tables of any kind, as records by the names of their columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path

from kdjax.errors import InputError, nearest
from kdjax.text import parquet
from kdjax.text.records import Record, check_once, records
from kdjax.text.streams import (
    LINE_BYTES,
    check_characters,
    check_readable,
    lines,
    read_text,
    uncompressed_suffix,
)


def table_rows(path: Path, columns: Collection[str]) -> Iterator[Record]:
    """Yield the rows of a file of any kind.

    Args:
        path: a .csv, .tsv, .jsonl, .json or .parquet file; all but the last perhaps compressed.
        columns: columns that are used; of a .parquet file only these are read.

    Raises:
        InputError: it cannot be read, is of another kind, has a used column twice, or a row has
            another number of columns than the header.
    """
    suffix = uncompressed_suffix(path)
    if suffix == parquet.SUFFIX:
        parquet.check_readable(path)
        return parquet.rows(path, columns, f"some of {', '.join(sorted(columns))}")
    check_readable(path)
    if suffix in (".jsonl", ".json"):
        return records(path)
    if suffix == ".csv":
        return _by_header(path, _csv_rows(path), columns)
    if suffix == ".tsv":
        return _by_header(path, tsv_rows(path), columns)
    raise InputError(
        f"{path}: expected a .csv, .tsv, .jsonl, .json or .parquet file; all but the last may be "
        ".gz, .bz2, .xz or .zst"
    )


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a .tsv file with their lines; quotation marks are text, as in GLUE."""
    for number, line in lines(path):
        if line:
            yield number, line.split("\t")


def field_text(record: Record, column: str, setting_name: str) -> str:
    """Return a field as text: text as it is, a number or a truth value as Python writes it.

    Args:
        record: row of the file.
        column: name of the field.
        setting_name: dotted name of the setting that chose the column, for messages.

    Raises:
        InputError: it is missing, of another type, or no valid Unicode.
    """
    value = record.fields.get(column)
    # Null and absent are two mistakes.
    if value is None and column in record.fields:
        raise InputError(f"{record.where}: {column!r} is null, expected a value")
    if value is None:
        hint = nearest(column, record.names)
        raise InputError(f"{record.where}: has no {column!r}{hint}, the column of {setting_name}")
    # Bytes, lists and dates have no text of their own: Python's would be read as words.
    if not isinstance(value, (str, int, float, Decimal)):
        raise InputError(
            f"{record.where}: {column!r} is {value!r:.60} ({type(value).__name__}), expected text "
            f"or a number, the column of {setting_name}"
        )
    text = str(value)
    check_characters(text, record.where)
    return text


def _by_header(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: Collection[str]
) -> Iterator[Record]:
    """Yield the rows of a table as records, by the names in its first row."""
    first, header = next(rows, (1, []))
    check_once([name for name in header if name in columns], f"{path}, line {first}")
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: has {len(row)} columns, expected the header's "
                f"{len(header)}"
            )
        yield Record(f"{path}, line {number}", None, dict(zip(header, row, strict=True)))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a .csv file with the lines they end at."""
    # Python's limit is for programs that read what they do not trust; it holds for all readers of
    # the process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as e:
        if "field limit" in str(e):
            raise InputError(
                f"{path}, line {reader.line_num}: a field is longer than "
                f"{csv.field_size_limit():,} characters, the most that are read, expected shorter "
                "fields"
            ) from None
        raise InputError(f"{path}, line {reader.line_num}: malformed CSV, {e}") from None
