"""The files beside a page: every figure as SVG and PNG, every table as CSV, Markdown and LaTeX."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from kdjax.errors import InputError
from kdjax.report import page_tables, pictures
from kdjax.report.page_tables import PageTable, tables_of
from kdjax.report.pictures import Picture
from kdjax.storage.files import write_bytes, write_text

DIRECTORY = "report"
"""Directory beside the page."""
_KINDS = ("figures", "tables")
"""What lies in it."""
_WRITERS: Mapping[str, Callable[[PageTable], str]] = {
    "csv": page_tables.as_csv,
    "md": page_tables.as_markdown,
    "tex": page_tables.as_latex,
}


def write_page(make: Callable[[], str], path: Path) -> list[Path]:
    """Write a page, and `report/` beside it with its figures and tables.

    Args:
        make: makes the page; figures that it renders become files.
        path: file of the page.

    Returns:
        The files, the page first.

    Raises:
        InputError: a file cannot be written.
    """
    with pictures.collect_pictures() as figures:
        html = make()
    # Written under another name and renamed: what an earlier page had, and this one has not, goes,
    # and a command that ends early leaves the earlier files.
    directory = path.parent / DIRECTORY
    beside = path.with_name(f".{DIRECTORY}.{os.getpid()}.tmp")
    try:
        names = _write_figures(figures, beside) + _write_tables(tables_of(html), beside)
        _replace(directory, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    # Last, so that a page that is there has its files.
    write_text(path, html)
    return [path, *(directory / name for name in names)]


def _replace(directory: Path, beside: Path) -> None:
    """Put new figures and tables in the place of earlier ones; what else lies there stays.

    Raises:
        InputError: earlier ones cannot be removed, or nothing put in their place.
    """
    try:
        for kind in _KINDS:
            if (directory / kind).exists():
                shutil.rmtree(directory / kind)
            if (beside / kind).exists():
                directory.mkdir(exist_ok=True)
                (beside / kind).replace(directory / kind)
    except OSError as e:
        raise InputError(
            f"{directory}: cannot be written ({e.strerror}), expected a directory to write to"
        ) from None


def _write_figures(figures: Mapping[str, Picture], directory: Path) -> list[str]:
    """Write each figure as `figures/NAME.svg` and `figures/NAME.png`; return these names."""
    written = []
    for name, picture in figures.items():
        for suffix, content in (("svg", picture.svg.encode()), ("png", picture.png)):
            file = f"figures/{name}.{suffix}"
            write_bytes(directory / file, content)
            written.append(file)
    return written


def _write_tables(tables: list[PageTable], directory: Path) -> list[str]:
    """Write each table as CSV, Markdown and LaTeX below `tables/`; return the files' names."""
    written = []
    for name, table in name_tables(tables).items():
        for suffix, write in _WRITERS.items():
            file = f"tables/{name}.{suffix}"
            write_text(directory / file, write(table))
            written.append(file)
    return written


def name_tables(tables: list[PageTable]) -> dict[str, PageTable]:
    """Return tables by names for files: the words of their titles, with a number where one recurs.

    Args:
        tables: tables in the page's order.
    """
    by_name: dict[str, PageTable] = {}
    for table in tables:
        # Units and amounts, which stand behind, are not for a name.
        title = re.split("[;(]", table.title.lower())[0]
        words = re.findall(r"[a-z0-9]+", title)
        stem = "-".join(words)[:60].strip("-") or "table"
        name = stem
        number = 2
        while name in by_name:
            name = f"{stem}-{number}"
            number += 1
        by_name[name] = table
    return by_name
