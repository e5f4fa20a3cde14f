"""The studies of a sweep: one for every combination of the swept settings' values."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

from kdjax import recipes
from kdjax.budget.accounting import Budget
from kdjax.config import Config
from kdjax.dry_run.arms import arms_of
from kdjax.errors import InputError
from kdjax.files import digest


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
    """The studies of a sweep, small budgets first; settings that come first vary slowest within a
    budget.

    Raises:
        InputError: nothing to sweep over, an unknown setting, or a value that the setting cannot
            have.
    """
    if not config.sweep:
        raise InputError(
            "sweep is empty, expected settings with their values: {budget.flops: [1e12, 1e13]}"
        )
    for name, values in config.sweep.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"sweep.{name} is {values!r}, expected a list of values")
        if name.split(".")[0] in ("seeds", "sweep", "tune", "tuning", "plan"):
            raise InputError(
                f"sweep.{name}: cannot be swept over, expected a setting of a single study"
            )
    base = replace(config, sweep={})
    made = []
    for values in itertools.product(*config.sweep.values()):
        settings = dict(zip(config.sweep, values, strict=True))
        made.append(Cell(_name(settings), settings, recipes.changed(base, settings)))
    if len({cell.name for cell in made}) < len(made):
        raise InputError("sweep: two combinations have the same values, expected each value once")
    for cell in made:
        arms_of(cell.config)
    return sorted(made, key=lambda cell: Budget.of(cell.config.budget).amount)


def _name(settings: dict[str, Any]) -> str:
    """A directory's name, readable where values are; else with a digest."""
    parts = [
        f"{name}={f'{value:g}' if isinstance(value, float) else value}"
        for name, value in settings.items()
    ]
    made = re.sub(r"[^\w.=+-]+", "_", ",".join(parts).replace(",", "+"))
    return made if len(made) <= 100 else f"{made[:80]}-{digest(settings)[:12]}"
