"""`kdjax audit DIR`: every price and every sum of a study worked out anew, and held against what
its files say.

Nothing is trained and nothing is written. From the recipe follow the prices; from prices and steps
what a run has spent; from budget and prices its steps; from the text its tokens; from the runs'
figures the verdicts. What was measured is taken as the run wrote it down.
"""

from __future__ import annotations

from pathlib import Path

from kdjax.audit.book import Book, Difference
from kdjax.audit.study import RESULTS, StudyAudit, without_versions
from kdjax.config import plain
from kdjax.errors import InputError
from kdjax.recipes import from_dict
from kdjax.results.store import results_of
from kdjax.study import manifest as record
from kdjax.sweep import results, sweep
from kdjax.sweep.cells import cells_of


def audit(directory: Path) -> list[Difference]:
    """All that does not fit together in the directory of a study or a sweep; empty: nothing.

    Raises:
        InputError: the directory holds neither.
    """
    return _audited(directory).differences


def audit_command(directory: Path) -> None:
    """The `audit` command: what was worked out anew, a line a study, and a line for every
    difference.

    Raises:
        InputError: there are differences, or nothing to audit.
    """
    book = _audited(directory)
    for line in (*book.lines, *book.differences):
        print(line)
    if book.differences:
        raise InputError(f"{directory}: found {len(book.differences)} difference(s), expected none")


def _audited(directory: Path) -> Book:
    book = Book()
    if any((directory / name).exists() for name in (sweep.NAME, sweep.RECIPE, "cells")):
        _sweep(directory, book)
    elif any((directory / name).exists() for name in (record.NAME, RESULTS, "runs")):
        StudyAudit(directory, None, book).audit()
    else:
        raise InputError(
            f"{directory}: holds no study, expected the directory of kdjax compare or kdjax sweep"
        )
    return book


def _sweep(directory: Path, book: Book) -> None:
    """Every cell, and what the sweep makes of them."""
    path = directory / sweep.NAME
    found = {}
    for cell in sorted((directory / "cells").glob("*/")):
        found[cell.name] = StudyAudit(cell, directory / "shared", book).audit()
    if told := book.read(path):
        with book.reading(path):
            config = from_dict(plain(told["config"]))
            cells = cells_of(config)
            made = results.collect(
                config, cells, [results_of(found[cell.name], path) for cell in cells]
            )
            book.same(path, without_versions(told), plain(without_versions(made)))
    book.lines.append(
        f"{directory}: worked out again: what the sweep makes of its studies, {len(found)}"
    )
