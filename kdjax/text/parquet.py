"""Rows of Parquet files, a small batch at a time and only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kdjax.text.records import Record, check_once
from kdjax.text.streams import BUFFER, TextError, TextFile, import_optional

SUFFIX = ".parquet"
ROWS = 64
"""Rows held at a time."""


def check_readable(path: TextFile) -> None:
    """Raise an InputError where pyarrow is missing."""
    import_optional("pyarrow.parquet", "parquet", path)


def rows(
    path: TextFile, columns: Collection[str], expected: str = "the one data.text_field names"
) -> Iterator[Record]:
    """Yield the rows of a file, each with those of the columns that the file has.

    A column's pages are read one after another; how large a page is, its writer decided.

    Args:
        path: the file.
        columns: names of the columns to read.
        expected: what the columns should have been, for messages.

    Raises:
        TextError: not a whole Parquet file, none of the columns is in it, or one is twice.
    """
    parquet = import_optional("pyarrow.parquet", "parquet", path)
    arrow = import_optional("pyarrow", "parquet", path)
    number = 0
    try:
        with ExitStack() as stack:
            # A path is opened by the library itself.
            content: Any = path
            if not isinstance(path, Path):
                content = stack.enter_context(path.open("rb", BUFFER))
            file = stack.enter_context(
                parquet.ParquetFile(content, buffer_size=BUFFER, pre_buffer=False)
            )
            names = file.schema_arrow.names
            present = [name for name in names if name in columns]
            if not present:
                raise TextError(f"{path}: has the columns {', '.join(names)}, expected {expected}")
            check_once(present, str(path))
            # One thread: workers have the other cores.
            for batch in file.iter_batches(ROWS, columns=present, use_threads=False):
                for fields in batch.to_pylist():
                    yield Record(f"{path}, row {number}", None, fields, columns=tuple(names))
                    number += 1
    except UnicodeDecodeError as e:
        raise TextError(
            f"{path}: not UTF-8 about row {number} ({e.reason}), expected UTF-8 text"
        ) from None
    except (ValueError, OverflowError) as e:  # a time that Python has no type for
        if isinstance(e, arrow.ArrowException):
            raise TextError(
                f"{path}: cannot be read ({e}), expected a whole Parquet file"
            ) from None
        raise TextError(
            f"{path}: a value about row {number} cannot be read ({e}), expected text or numbers in "
            f"{', '.join(sorted(columns))}"
        ) from None
    except (arrow.ArrowException, OSError) as e:
        raise TextError(f"{path}: cannot be read ({e}), expected a whole Parquet file") from None
