"""A whole study: every run within one budget, evaluated alike; then results and a report."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from kdjax.arms.export_note import export_note
from kdjax.config import Config
from kdjax.errors import InputError, nearest
from kdjax.parallel import hosts
from kdjax.progress import Reporter
from kdjax.report import notes, study_page, terminal, wall_clock
from kdjax.results.runs import RunResult
from kdjax.results.store import RESULTS, write_results
from kdjax.results.study import Results
from kdjax.runtime.clock import CLOCK, Mark
from kdjax.storage.files import read_json, remove_on_input_error
from kdjax.storage.typed_json import check_fields, from_plain
from kdjax.study import manifest
from kdjax.study.judgement.judge import collect
from kdjax.study.measures.reference_models import ReferenceModels
from kdjax.study.parts import StudyPart
from kdjax.study.runs.run_backup import run_name
from kdjax.study.runs.runner import StudyRunner
from kdjax.study.runs.trunk import StudyTrunk
from kdjax.study.study import Study
from kdjax.study.writer import backup_of, sole_writer
from kdjax.training.teacher.directories import CARD

PLAIN_WIDTH = 80
"""Columns of the table where the output is no terminal."""


def compare(config: Config, out: Path, begun: Mark | None = None) -> Results:
    """Run a study, or go on with an interrupted one, and print its results.

    Args:
        config: resolved recipe of the study.
        out: the study's directory. It gets `results.json` and `report.html`, and holds
            `runs/ARM-seedN/` and the corpus and the teacher made for the study.
        begun: time at which the command began; None: now.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: the recipe, the text, the teacher or the directory cannot be used.
    """
    begun = begun or CLOCK.mark()
    if config.sweep:
        raise InputError(
            f"the recipe sweeps over {', '.join(config.sweep)}, expected `kdjax sweep` for it, or "
            "no sweep"
        )
    with sole_writer(out, backup_of(config)), Reporter() as reporter:
        # A student's shape is chosen before it is trained, and cannot be changed afterwards.
        if note := export_note(config):
            reporter.log(note)
        study = prepared_study(config, out, reporter)
        study.log_finished(study.plan.runs)
        reporter.set_budget(study.unspent(study.plan.runs))
        results = finish(study, begun)
        reporter.log(f"wall-clock of this command, {wall_clock.text(CLOCK.since(begun))}")
    # Several processes have the same results; one prints them.
    if hosts.is_main_process():
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(width=width).print(terminal.summary(results))
        print(f"report: {out / 'report.html'}")
        # Last, where it is seen: an arm that diverged is compared with none.
        for sentence in notes.divergences(results.runs):
            print(sentence)
    return results


def train_one(config: Config, out: Path, arm: str, seed: int) -> RunResult:
    """Make one run of a study; `compare` with the same directory finds it done.

    Args:
        config: resolved recipe.
        out: directory of the study.
        arm: name of the arm.
        seed: seed of the run.

    Raises:
        InputError: the recipe, the text, the teacher or the directory cannot be used, or the recipe
            has no such arm or seed.
    """
    if arm not in config.arms:
        raise InputError(
            f"--arm is {arm!r}, expected an arm of the recipe{nearest(arm, config.arms)}"
        )
    if seed not in config.seeds:
        raise InputError(
            f"--seed is {seed}, expected one of the recipe's seeds {list(config.seeds)}"
        )
    writer = sole_writer(out, backup_of(config), part=run_name(arm, seed))
    with writer, Reporter() as reporter:
        study = prepared_study(config, out, reporter)
        return StudyRunner(study).run_all([(arm, seed)])[0]


def train_part(config: Config, out: Path, part: StudyPart) -> list[RunResult]:
    """Make one part of a study's runs, and with the first part the references.

    `kdjax.study.parts.merge` puts parts together.

    Args:
        config: resolved recipe.
        out: directory of the part.
        part: which of how many parts.

    Raises:
        InputError: the recipe, the text, the teacher or the directory cannot be used.
    """
    writer = sole_writer(out, backup_of(config), part=f"{part.number}-of-{part.count}")
    with writer, Reporter() as reporter:
        study = prepared_study(config, out, reporter)
        # All parts list the runs alike, and each takes its own.
        runs = part.select(study.spans, config.seeds)
        study.log_finished(runs)
        reporter.set_budget(study.unspent(runs))
        rows = StudyRunner(study).run_all(runs)
        if part.number == 1:
            ReferenceModels(study).measure()
    return rows


def prepared_study(
    config: Config, out: Path, reporter: Reporter, shared: Path | None = None
) -> Study:
    """Return a study ready to run.

    Bad input leaves the directory as it was found, so that a corrected recipe can have it.

    Args:
        config: resolved recipe of the study.
        out: directory that the study writes to.
        reporter: receiver of reports on progress.
        shared: a directory for what other studies use too.

    Raises:
        InputError: the recipe, the text, the teacher or the directory cannot be used.
    """
    # Teachers that took hours to train stay, whatever is wrong afterwards.
    directories = [out / name for name in manifest.BEFORE]
    with remove_on_input_error(out, *directories, unless=f"**/seed*/at-*/{CARD}"):
        study = Study(config, out, reporter, shared)
        study.prepare()
    return study


def finish(study: Study, begun: Mark, trunk: StudyTrunk | None = None) -> Results:
    """Make every run of a study that is not finished, then its results and its report.

    Args:
        study: study whose `prepare` has been called.
        begun: time at which the work on it began.
        trunk: its place among studies of other budgets that share a trunk with it; None: it shares
            none.

    Returns:
        What `results.json` holds.
    """
    out = study.plan.out
    all_runs = study.plan.runs
    looks = earlier_looks(out / RESULTS, len(study.plan.config.seeds))
    is_finished = study.unspent(all_runs) == 0 and (out / RESULTS).exists()
    # A study that was finished before has spent its time already.
    timing = nullcontext() if is_finished else wall_clock.record(out, begun)
    with timing:
        rows = StudyRunner(study, trunk).run_all(all_runs)
        references = ReferenceModels(study).measure()
    # Judged anew each time: arms and seeds may have joined.
    results = collect(study, rows, references, wall_clock.read(out), looks)
    with CLOCK.measure("report"):
        write_results(out / RESULTS, results)
        study_page.write(results, out / study_page.PAGE)
    return results


def earlier_looks(path: Path, seeds: int) -> list[int]:
    """Return the numbers of seeds with which a study's results were made before, rising.

    Whoever looks, and adds seeds where the verdict is not the one that was hoped for, errs more
    often than the verdicts say.

    Args:
        path: results.json of the study, which may be there from before.
        seeds: number of seeds that results will be made with now; as many are not a further look.

    Returns:
        Nothing where there are no results yet, or where the file is damaged: it is written anew.
    """
    if not path.exists():
        return []
    try:
        content = check_fields(read_json(path), {"config": dict[str, Any]}, f"{path}:")
        recorded = check_fields(content["config"], {"seeds": tuple[int, ...]}, f"{path}: config")
        earlier = from_plain(tuple[int, ...], content.get("looks", []), f"{path}: looks")
    except InputError:
        return []
    looks = {*earlier, len(recorded["seeds"])}
    return sorted(look for look in looks if 0 < look < seeds)
