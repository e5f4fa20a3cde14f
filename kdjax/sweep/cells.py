"""The studies of a sweep: one for every combination of the swept settings' values."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

from kdjax import recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.budget.accounting import Budget
from kdjax.config import KINDS, Config
from kdjax.errors import InputError
from kdjax.storage.files import digest
from kdjax.sweep.check_trunk import check_trunk

BUDGETS = frozenset(f"budget.{kind}" for kind in KINDS)
"""Settings that set the budget, by kind."""
NOT_OF_A_STUDY = ("seeds", "sweep", "tune", "tuning", "plan")
"""Sections of a recipe that cannot be swept over: they say nothing of a single study."""
TRUNK = "trunk"
"""Name in `sweep` that is no swept setting: whether runs of all budgets share a trunk."""
LONGEST_NAME = 100
"""Most bytes of a directory's name that is made of settings alone."""


@dataclass(frozen=True)
class Cell:
    """One study of a sweep.

    Attributes:
        name: name of the study's directory.
        settings: swept setting, dotted -> the study's value.
        config: recipe of the study.
    """

    name: str
    settings: dict[str, Any]
    config: Config

    @property
    def budget(self) -> Budget:
        """Return the budget of each run of the study."""
        return Budget.from_config(self.config.budget)

    @property
    def group_settings(self) -> dict[str, Any]:
        """Return the swept settings but for the budget: those of a group of studies."""
        return {name: value for name, value in self.settings.items() if name not in BUDGETS}


def cells_of(config: Config) -> list[Cell]:
    """Return the studies of a sweep, small budgets first; the first settings vary slowest.

    Args:
        config: recipe of the sweep.

    Raises:
        InputError: nothing to sweep over, an unknown setting, a value that the setting cannot have,
            or a trunk that runs of several budgets cannot share.
    """
    if not swept_settings(config):
        raise InputError(
            "sweep is empty, expected settings with their values: {budget.flops: [1e12, 1e13]}"
        )
    # The sweep itself must make sense before any value is put into a recipe.
    shared_trunk = shares_trunk(config)
    swept = swept_settings(config)
    for name, values in swept.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"sweep.{name} is {values!r}, expected a list of values")
        if name.split(".")[0] in NOT_OF_A_STUDY:
            raise InputError(
                f"sweep.{name}: cannot be swept over, expected a setting of a single study"
            )

    # One study for each combination; the last setting varies fastest.
    base = replace(config, sweep={})
    cells = []
    for values in itertools.product(*swept.values()):
        settings = dict(zip(swept, values, strict=True))
        cells.append(Cell(_name(settings), settings, recipes.changed(base, settings)))
    _check_directories(cells)
    cells.sort(key=lambda cell: cell.budget.amount)
    if shared_trunk:
        cells = [_warming_up_alike(cell, cells[0]) for cell in cells]

    # A combination that no study can have is refused here, before any study runs.
    for cell in cells:
        arms = arms_of(cell.config)
        if shared_trunk:
            check_trunk(cell.config, arms, swept)
    return cells


def swept_settings(config: Config) -> dict[str, Any]:
    """Return the settings that a recipe sweeps over, with their values."""
    return {name: values for name, values in config.sweep.items() if name != TRUNK}


def shares_trunk(config: Config) -> bool:
    """Return whether the runs of a sweep's budgets share a trunk.

    Raises:
        InputError: `sweep.trunk` is neither own nor shared.
    """
    trunk = config.sweep.get(TRUNK, "own")
    if trunk not in ("own", "shared"):
        raise InputError(f"sweep.trunk is {trunk!r:.80}, expected own or shared")
    return bool(trunk == "shared")


def _warming_up_alike(cell: Cell, smallest: Cell) -> Cell:
    """Return a study whose warm-up is a share of the sweep's smallest budget, unless the recipe
    names another."""
    train = cell.config.train
    budget = smallest.budget
    if train.optimizer.warmup_budget or not budget.countable:
        return cell
    optimizer = replace(train.optimizer, warmup_budget=float(budget.amount))
    return replace(cell, config=replace(cell.config, train=replace(train, optimizer=optimizer)))


def _check_directories(cells: list[Cell]) -> None:
    """Check that each study has a directory of its own, on disks that know no capitals too.

    Raises:
        InputError: two would share one.
    """
    by_directory: dict[str, Cell] = {}
    for cell in cells:
        first_cell = by_directory.setdefault(cell.name.casefold(), cell)
        if first_cell is cell:
            continue
        if first_cell.settings == cell.settings:
            raise InputError(
                "sweep: two combinations have the same values, expected each value once"
            )
        raise InputError(
            f"sweep: {first_cell.settings} and {cell.settings} would both lie in {cell.name}, "
            "expected values that differ in more than capitals and marks"
        )


def _name(settings: dict[str, Any]) -> str:
    """Return a directory's name: the settings, cut and with a digest where they are long."""
    parts = []
    for name, value in settings.items():
        text = f"{value:g}" if isinstance(value, float) else value
        parts.append(f"{name}={text}")

    # What paths and shells give a meaning to has no place in a directory's name.
    directory = re.sub(r"[^\w.=+-]+", "_", ",".join(parts).replace(",", "+"))
    if len(directory.encode()) > LONGEST_NAME:
        beginning = re.sub(r"[^\w.=+-]", "_", directory[:80], flags=re.ASCII)
        return f"{beginning}-{digest(settings)[:12]}"
    return directory
