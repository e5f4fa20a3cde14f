"""A sweep: one study for every combination of some settings' values, all on the same seeds, text and teacher."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from kdjax import recipes
from kdjax.budget.accounting import Budget
from kdjax.clock import CLOCK
from kdjax.config import Config, first_difference
from kdjax.errors import InputError
from kdjax.files import check_writable, digest, read_json, write_json
from kdjax.parallel import hosts
from kdjax.study.compare import PLAIN_WIDTH, claimed, finish
from kdjax.study.mirror import below
from kdjax.study.pricing import arms_of
from kdjax.study.progress import Reporter
from kdjax.study.record import shared_settings
from kdjax.sweep import report, table
from kdjax.sweep.results import collect

NAME = "sweep.json"
"""In a sweep's directory: what was found."""
REPORT = "sweep.html"
"""The same for people."""
RECIPE = "recipe.json"
"""Whose directory it is."""


@dataclass(frozen=True)
class Cell:
    """One study of a sweep.

    Attributes:
        name: of its directory.
        settings: dotted setting -> its value here.
        config: its recipe.
    """

    name: str
    settings: dict[str, Any]
    config: Config


def cells_of(config: Config) -> list[Cell]:
    """The studies of a sweep, small budgets first; settings that come first vary slowest within a budget.

    Raises:
        InputError: nothing to sweep over, an unknown setting, or a value that the setting cannot have.
    """
    if not config.sweep:
        raise InputError("sweep is empty, expected settings with their values: {budget.flops: [1e12, 1e13]}")
    for name, values in config.sweep.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"sweep.{name} is {values!r}, expected a list of values")
        if name.split(".")[0] in ("seeds", "sweep", "tune", "tuning", "plan"):
            raise InputError(f"sweep.{name}: cannot be swept over, expected a setting of a single study")
    base, made = replace(config, sweep={}), []
    for values in itertools.product(*config.sweep.values()):
        settings = dict(zip(config.sweep, values, strict=True))
        made.append(Cell(_name(settings), settings, recipes.changed(base, settings)))
    if len({cell.name for cell in made}) < len(made):
        raise InputError("sweep: two combinations have the same values, expected each value once")
    for cell in made:
        arms_of(cell.config)
    return sorted(made, key=lambda cell: Budget.of(cell.config.budget).amount)


def sweep(config: Config, out: Path) -> dict[str, Any]:
    """Runs every study of a sweep, or goes on with an interrupted one.

    Args:
        config: the recipe, with `sweep`.
        out: the sweep's directory. It gets `sweep.json` and `sweep.html`, and holds `cells/NAME/`, each a study's
            directory, and in `shared/` what they have in common.

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
            reporter.say(f"study {n} of {len(cells)}: {cell.name}")
            study = claimed(below(cell.config, f"cells/{cell.name}"), directory, reporter, out / "shared")
            left = Budget.of(cell.config.budget).amount * _runs(cell)
            reporter.plan(ahead - left + study.left)
            results.append(finish(study, directory, begun))
            ahead -= left
        found = collect(config, cells, results)
        write_json(out / NAME, found)
        report.write(found, out / REPORT)
    if hosts.lead():
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table.summary(found))
        print(f"report: {out / REPORT}")
    return found


def _runs(cell: Cell) -> int:
    return len(cell.config.arms) * len(cell.config.seeds)


def _claim(config: Config, out: Path) -> None:
    """Takes the directory for this recipe; more arms, seeds and values may join."""
    check_writable(out)
    identity, path = shared_settings(config), out / RECIPE
    if path.exists():
        if difference := first_difference(read_json(path), identity):
            name, before, now = difference
            raise InputError(f"{path}: this sweep's {name} is {before!r}, expected {now!r}; use another --out")
    elif any(out.iterdir()):
        raise InputError(f"{out}: holds files but no sweep, expected a new or empty directory for --out")
    else:
        write_json(path, identity)


def _name(settings: dict[str, Any]) -> str:
    """A directory's name, readable where values are; else with a digest."""
    parts = [f"{name}={f'{value:g}' if isinstance(value, float) else value}" for name, value in settings.items()]
    made = re.sub(r"[^\w.=+-]+", "_", ",".join(parts).replace(",", "+"))
    return made if len(made) <= 100 else f"{made[:80]}-{digest(settings)[:12]}"
