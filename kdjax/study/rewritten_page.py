"""A study's page, written again from what lies in its directory, or in those of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdjax import recipes
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.report import progress_page, study_page
from kdjax.report.files import write_page
from kdjax.results.runs import RunResult
from kdjax.results.store import RESULTS, read_results, result_of
from kdjax.runtime.clock import CLOCK
from kdjax.storage.files import read_json
from kdjax.storage.typed_json import read_typed
from kdjax.study.compare import finish, prepared_study
from kdjax.study.manifest import NAME
from kdjax.study.parts import merge
from kdjax.study.runs.run_backup import MANIFEST, RESULT, run_name
from kdjax.study.runs.run_manifest import RunManifest
from kdjax.study.writer import backup_of, sole_writer


def write_study_page(out: Path) -> list[Path]:
    """Write a study's page and the files beside it, whether the study is finished or in progress.

    Args:
        out: directory of the study.

    Returns:
        The files, the page first.

    Raises:
        InputError: the directory holds neither results nor a finished run, or cannot be written.
    """
    if (out / RESULTS).exists():
        results = read_results(out / RESULTS)
        return write_page(lambda: study_page.html(results), out / study_page.PAGE)
    manifests = _manifests(out)
    rows = _finished(out, manifests)
    planned = _planned(manifests)
    written = write_page(
        lambda: progress_page.html(rows, planned, manifests[0].config), out / study_page.PAGE
    )
    # A study that was finished meanwhile has written its page, and has it again.
    return write_study_page(out) if (out / RESULTS).exists() else written


def write_parts_page(parts: Sequence[Path], out: Path) -> list[Path]:
    """Merge a study's parts, judge them where every run is there, and write the page.

    Args:
        parts: directories of parts of one study.
        out: directory of the whole study, as of `kdjax.study.parts.merge`.

    Returns:
        The files, the page first.

    Raises:
        InputError: the parts are not of one study, none has a finished run, or `out` cannot be
            written.
    """
    begun = CLOCK.mark()
    before = _run_names(out)
    merge(parts, out)
    manifests = _manifests(out)
    planned = {run_name(*run) for run in _planned(manifests)}
    names = _run_names(out)
    # Results that a run has joined since are those of fewer runs.
    if planned <= names and (names != before or not (out / RESULTS).exists()):
        config = recipes.from_dict(manifests[0].config)
        with sole_writer(out, backup_of(config)), Reporter() as reporter:
            finish(prepared_study(config, out, reporter), begun)
    return write_study_page(out)


def _run_names(out: Path) -> set[str]:
    """Return the names of a directory's finished runs."""
    return {path.parent.name for path in (out / "runs").glob(f"*/{RESULT}")}


def _manifests(out: Path) -> list[RunManifest]:
    """Read the manifests of a directory's runs, in the order of their names.

    Raises:
        InputError: there is no study, or no run of it has begun.
    """
    paths = sorted((out / "runs").glob(f"*/{MANIFEST}"))
    if not paths:
        there = "a study without a run" if (out / NAME).exists() else "no study"
        raise InputError(
            f"{out}: holds {there}, expected {RESULTS}, or runs/ARM-seedN of a study in progress"
        )
    return [read_typed(RunManifest, path) for path in paths]


def _planned(manifests: Sequence[RunManifest]) -> list[tuple[str, int]]:
    """Return arm and seed of every run that the runs' recipes name."""
    arms: dict[str, None] = {}
    seeds: set[int] = set()
    for manifest in manifests:
        arms.update(dict.fromkeys(manifest.config["arms"]))
        seeds.update(manifest.config["seeds"])
    runs = []
    for arm in arms:
        runs += [(arm, seed) for seed in sorted(seeds)]
    return runs


def _finished(out: Path, manifests: Sequence[RunManifest]) -> list[RunResult]:
    """Read the results of the runs that are finished."""
    rows = []
    for manifest in manifests:
        path = out / "runs" / run_name(manifest.arm, manifest.seed) / RESULT
        if path.exists():
            rows.append(result_of(read_json(path), path, manifest.arm, manifest.seed))
    return rows
