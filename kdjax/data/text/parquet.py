"""Rows of Parquet files, a small batch at a time and only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from kdjax.data.text.records import Record
from kdjax.data.text.streams import BUFFER, TextError, optional

SUFFIX = ".parquet"
ROWS = 64
"""Rows held at a time."""


def check_readable(path: Path) -> None:
    """Raise an InputError where pyarrow is missing."""
    optional("pyarrow.parquet", "parquet", path)


def rows(
    path: Path, columns: Collection[str], expected: str = "the one data.text_field names"
) -> Iterator[Record]:
    """Yield the rows of a file, each with those of the columns that the file has.

    A column's pages are read one after another; how large a page is, its writer decided.

    Args:
        path: the file.
        columns: names of the columns to read.
        expected: what the columns should have been, for messages.

    Raises:
        TextError: not a whole Parquet file, or none of the columns is in it.
    """
    parquet = optional("pyarrow.parquet", "parquet", path)
    arrow = optional("pyarrow", "parquet", path)
    number = 0
    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            present = [name for name in file.schema_arrow.names if name in columns]
            if not present:
                names = ", ".join(file.schema_arrow.names)
                raise TextError(f"{path}: has the columns {names}, expected {expected}")
            # One thread: workers have the other cores.
            for batch in file.iter_batches(ROWS, columns=present, use_threads=False):
                for fields in batch.to_pylist():
                    yield Record(f"{path}, row {number}", None, fields)
                    number += 1
    except UnicodeDecodeError as e:
        raise TextError(
            f"{path}: not UTF-8 about row {number} ({e.reason}), expected UTF-8 text"
        ) from None
    except (arrow.ArrowException, OSError) as e:
        raise TextError(f"{path}: cannot be read ({e}), expected a whole Parquet file") from None
