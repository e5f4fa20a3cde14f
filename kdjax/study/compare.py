"""A study: every arm under every seed within one budget, evaluated alike, written down as results
and a report."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from kdjax.clock import CLOCK, Mark
from kdjax.config import Config
from kdjax.errors import InputError, nearest
from kdjax.files import undone_by_bad_input
from kdjax.parallel import hosts
from kdjax.progress import Reporter
from kdjax.report import study_page as report
from kdjax.report import terminal as table
from kdjax.report import wall_clock
from kdjax.results.schema import Results
from kdjax.results.store import write_results
from kdjax.study import manifest as record
from kdjax.study.parts import Part
from kdjax.study.results import collect
from kdjax.study.study import Study
from kdjax.training.teacher_directories import CARD

RESULTS = "results.json"
"""In the study's directory."""
PLAIN_WIDTH = 120
"""Columns of the table where the output is no terminal."""


def compare(config: Config, out: Path, begun: Mark | None = None) -> Results:
    """Runs a study, or goes on with an interrupted one: finished runs are kept, a half-finished one
    goes on.

    Args:
        config: the recipe.
        out: the study's directory. It gets `results.json` and `report.html`, and holds
            `runs/ARM-seedN/` and the corpus and the teacher made for the study.
        begun: when the command began; None: now.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: anything wrong with the recipe, the text, the teacher or the directory.
    """
    begun = begun or CLOCK.mark()
    if config.sweep:
        raise InputError(
            f"the recipe sweeps over {', '.join(config.sweep)}, expected `kdjax sweep` for it, or "
            "no sweep"
        )
    with Reporter() as reporter:
        study = claimed(config, out, reporter)
        reporter.set_budget(study.left)
        results = finish(study, out, begun)
        reporter.log(f"wall-clock, {wall_clock.told(CLOCK.since(begun))}")
    if hosts.is_main_process():
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table.summary(results))
        print(f"report: {out / 'report.html'}")
    return results


def train_one(config: Config, out: Path, arm: str, seed: int) -> dict[str, Any]:
    """One run of a study; `compare` with the same directory takes it up as done.

    Raises:
        InputError: as `compare`; or the recipe has no such arm or seed.
    """
    if arm not in config.arms:
        raise InputError(
            f"--arm is {arm!r}, expected an arm of the recipe{nearest(arm, config.arms)}"
        )
    if seed not in config.seeds:
        raise InputError(
            f"--seed is {seed}, expected one of the recipe's seeds {list(config.seeds)}"
        )
    with Reporter() as reporter:
        return claimed(config, out, reporter).run(arm, seed)


def train_part(config: Config, out: Path, part: Part) -> list[dict[str, Any]]:
    """The runs of one part of a study, and with the first part the references; `merge` puts parts
    together.

    Raises:
        InputError: as `compare`.
    """
    with Reporter() as reporter:
        study = claimed(config, out, reporter)
        mine = part.of(study)
        reporter.set_budget(
            study.budget.amount * sum(not study.finished(arm, seed) for arm, seed in mine)
        )
        rows = study.run_all(mine)
        if part.number == 1:
            study.references()
    return rows


def claimed(config: Config, out: Path, reporter: Reporter, shared: Path | None = None) -> Study:
    """A study ready to run. Bad input leaves the directory as it was found, so that a corrected
    recipe can have it.

    Args:
        config: the recipe.
        out: the study's directory.
        reporter: told what goes on.
        shared: a directory for what other studies use too.
    """
    made = [out / name for name in record.BEFORE]
    with undone_by_bad_input(out, *made, unless=f"**/seed*/at-*/{CARD}"):
        study = Study(config, out, reporter, shared)
        study.claim()
    return study


def finish(study: Study, out: Path, begun: Mark) -> Results:
    """Every run of a study that is still to be made, and then its results and its report.

    Args:
        study: the study.
        out: its directory.
        begun: when the work on it began.
    """
    config = study.config
    made = study.left == 0 and (out / RESULTS).exists()
    with nullcontext() if made else wall_clock.kept(out, begun):
        runs = study.run_all([(arm, seed) for seed in config.seeds for arm in config.arms])
        references = study.references()
    results = collect(study, runs, references, wall_clock.read(out))
    with CLOCK("report"):
        write_results(out / RESULTS, results)
        report.write(results, out / "report.html")
    return results
