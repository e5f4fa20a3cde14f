"""A sweep: one study for every combination of some settings' values, all on the same seeds, text
and teacher."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from kdjax.config import Config, first_difference
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.progress import Reporter
from kdjax.runtime.clock import CLOCK
from kdjax.storage.files import check_writable, entries, write_json
from kdjax.storage.typed_json import read_typed, to_plain
from kdjax.study.artifacts.artifact_dirs import artifact_dirs
from kdjax.study.artifacts.input_checks import check_inputs
from kdjax.study.compare import PLAIN_WIDTH, finish, prepared_study
from kdjax.study.manifest import shared_settings
from kdjax.study.runs.run_backup import subdirectory
from kdjax.study.writer import backup_of, sole_writer
from kdjax.sweep import report, table
from kdjax.sweep.cells import TRUNK, Cell, cells_of, shares_trunk
from kdjax.sweep.collect import collect
from kdjax.sweep.schema import SWEEP, SweepResults
from kdjax.sweep.trunk import study_trunk
from kdjax.sweep.verdict import divergences

REPORT = "sweep.html"
"""File of the page that shows them."""
RECIPE = "recipe.json"
"""File of the settings that every sweep into the directory must share."""


def sweep(config: Config, out: Path) -> SweepResults:
    """Run every study of a sweep, or go on with an interrupted one.

    Args:
        config: recipe with a `sweep` section.
        out: directory of the sweep. It gets `sweep.json` and `sweep.html`, and holds `cells/NAME/`,
            each a study's directory, and in `shared/` what they have in common.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory.
    """
    # Whatever is wrong with the recipe or the directory shows before anything is trained.
    cells = cells_of(config)
    with sole_writer(out, backup_of(config)), _registered(config, out), Reporter() as reporter:
        # What is missing for the last study is found before the first.
        for cell in cells:
            check_inputs(
                cell.config, artifact_dirs(cell.config, out / "cells" / cell.name, out / "shared")
            )
        studies = []
        # What the studies from here on may still spend, in the budget's unit.
        ahead = sum(_budget(cell) for cell in cells)
        for n, cell in enumerate(cells, start=1):
            directory = out / "cells" / cell.name
            begun = CLOCK.mark()
            reporter.log(f"study {n} of {len(cells)}: {cell.name}")
            recipe = subdirectory(cell.config, f"cells/{cell.name}")
            with sole_writer(directory, backup_of(recipe)):
                study = prepared_study(recipe, directory, reporter, out / "shared")
                ahead -= _budget(cell)
                study.log_finished(study.plan.runs)
                reporter.set_budget(ahead + study.unspent(study.plan.runs))
                trunk = study_trunk(cells, cell, out) if shares_trunk(config) else None
                studies.append(finish(study, begun, trunk))

        # Only when every study has ended: each gives a point of every curve.
        results = collect(config, cells, studies)
        write_json(out / SWEEP, to_plain(results))
        report.write(results, out / REPORT)
    if hosts.is_main_process():
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(width=width).print(table.summary(results))
        print(f"report: {out / REPORT}")
        for sentence in divergences(results):
            print(sentence)
    return results


def _budget(cell: Cell) -> float:
    """Return the amount that all runs of a study may spend."""
    runs = len(cell.config.arms) * len(cell.config.seeds)
    return cell.budget.amount * runs


@contextmanager
def _registered(config: Config, out: Path) -> Iterator[None]:
    """Register the recipe in the directory, for a block that makes what is in it.

    If the block ends in bad input and nothing lies beside the recipe, it goes too. Finished studies
    stay, where `kdjax.storage.files.remove_on_input_error` would delete what a first start made.

    Raises:
        InputError: the directory holds another sweep, or something else.
    """
    _register(config, out)
    try:
        yield
    except InputError:
        # Nothing was made yet: a corrected recipe can have the directory.
        if entries(out) == [out / RECIPE]:
            (out / RECIPE).unlink()
        raise


def _register(config: Config, out: Path) -> None:
    """Register the recipe in the directory; more arms, seeds and values may join.

    Raises:
        InputError: it holds another sweep, or something else.
    """
    check_writable(out)
    # Settings that a later command may not change; arms, seeds and values are not among them.
    identity = shared_settings(config)
    if shares_trunk(config):
        identity[f"sweep.{TRUNK}"] = config.sweep[TRUNK]
    path = out / RECIPE
    if path.exists():
        if difference := first_difference(read_typed(dict[str, Any], path), identity):
            name, before, now = difference
            raise InputError(
                f"{path}: this sweep's {name} is {before!r}, expected {now!r}; use another --out"
            )
    elif entries(out):
        raise InputError(
            f"{out}: holds files but no sweep, expected a new or empty directory for --out"
        )
    else:
        write_json(path, identity)
