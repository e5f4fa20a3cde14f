"""A sweep: one study for every combination of some settings' values, all on the same seeds, text
and teacher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from kdjax.budget.accounting import Budget
from kdjax.clock import CLOCK
from kdjax.config import Config, first_difference
from kdjax.errors import InputError
from kdjax.files import check_writable, read_json, write_json
from kdjax.parallel import hosts
from kdjax.progress import Reporter
from kdjax.study.compare import PLAIN_WIDTH, finish, prepared_study
from kdjax.study.manifest import shared_settings
from kdjax.study.run_backup import subdirectory
from kdjax.sweep import report, table
from kdjax.sweep.cells import Cell, cells_of
from kdjax.sweep.results import collect

NAME = "sweep.json"
"""In a sweep's directory: what was found."""
REPORT = "sweep.html"
"""The same for people."""
RECIPE = "recipe.json"
"""Whose directory it is."""


def sweep(config: Config, out: Path) -> dict[str, Any]:
    """Runs every study of a sweep, or goes on with an interrupted one.

    Args:
        config: the recipe, with `sweep`.
        out: the sweep's directory. It gets `sweep.json` and `sweep.html`, and holds `cells/NAME/`,
            each a study's directory, and in `shared/` what they have in common.

    Returns:
        What `sweep.json` holds.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory.
    """
    cells = cells_of(config)
    _claim(config, out)
    with Reporter() as reporter:
        results = []
        ahead = sum(Budget.of(cell.config.budget).amount * _runs(cell) for cell in cells)
        for n, cell in enumerate(cells, start=1):
            directory = out / "cells" / cell.name
            begun = CLOCK.mark()
            reporter.log(f"study {n} of {len(cells)}: {cell.name}")
            study = prepared_study(
                subdirectory(cell.config, f"cells/{cell.name}"), directory, reporter, out / "shared"
            )
            left = Budget.of(cell.config.budget).amount * _runs(cell)
            reporter.set_budget(ahead - left + study.unspent(study.plan.runs))
            results.append(finish(study, begun))
            ahead -= left
        found = collect(config, cells, results)
        write_json(out / NAME, found)
        report.write(found, out / REPORT)
    if hosts.is_main_process():
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table.summary(found))
        print(f"report: {out / REPORT}")
    return found


def _runs(cell: Cell) -> int:
    return len(cell.config.arms) * len(cell.config.seeds)


def _claim(config: Config, out: Path) -> None:
    """Takes the directory for this recipe; more arms, seeds and values may join."""
    check_writable(out)
    identity = shared_settings(config)
    path = out / RECIPE
    if path.exists():
        if difference := first_difference(read_json(path), identity):
            name, before, now = difference
            raise InputError(
                f"{path}: this sweep's {name} is {before!r}, expected {now!r}; use another --out"
            )
    elif any(out.iterdir()):
        raise InputError(
            f"{out}: holds files but no sweep, expected a new or empty directory for --out"
        )
    else:
        write_json(path, identity)
