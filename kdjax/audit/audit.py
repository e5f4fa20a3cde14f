"""`kdjax audit DIR`: work out every price and sum of a study anew, and compare with its files.

Nothing is trained and nothing is written. From the recipe follow the prices; from prices and steps
what a run has spent; from budget and prices its steps; from the text its tokens; from the runs'
figures the verdicts. What was measured is taken as the run wrote it down.
"""

from __future__ import annotations

from pathlib import Path

from kdjax.audit.findings import AuditFindings, Mismatch
from kdjax.audit.results import without_versions
from kdjax.audit.study import audit_study
from kdjax.audit.trunks import audit_trunks
from kdjax.config import plain
from kdjax.errors import InputError
from kdjax.progress import Reporter
from kdjax.recipes import from_dict
from kdjax.results.store import RESULTS, results_of
from kdjax.storage.typed_json import to_plain
from kdjax.study import manifest as study_manifest
from kdjax.sweep.cells import cells_of, shares_trunk
from kdjax.sweep.collect import collect
from kdjax.sweep.schema import SWEEP, sweep_of
from kdjax.sweep.sweep import RECIPE

OF_A_SWEEP = (SWEEP, RECIPE, "cells")
"""A directory with one of these is a sweep's."""
OF_A_STUDY = (study_manifest.NAME, RESULTS, "runs")
"""A directory with one of these is a study's."""


def audit(directory: Path) -> list[Mismatch]:
    """Find the contradictions in the directory of a study or a sweep; empty: none.

    Raises:
        InputError: the directory holds neither.
    """
    return _audited(directory).differences


def audit_command(directory: Path, reporter: Reporter | None = None) -> None:
    """Print what was worked out anew, a line a study, and a line for every difference.

    Args:
        directory: of a study or a sweep.
        reporter: receiver of reports on progress; None: there is none.

    Raises:
        InputError: there are differences, or nothing to audit.
    """
    findings = _audited(directory, reporter)
    for line in (*findings.lines, *findings.differences):
        print(line)
    if findings.differences:
        raise InputError(
            f"{directory}: found {len(findings.differences)} difference(s), expected none"
        )


def _audited(directory: Path, reporter: Reporter | None = None) -> AuditFindings:
    """Audit a directory and return the findings."""
    findings = AuditFindings(reporter)
    if any((directory / name).exists() for name in OF_A_SWEEP):
        _audit_sweep(directory, findings)
    elif any((directory / name).exists() for name in OF_A_STUDY):
        audit_study(directory, None, findings)
    else:
        raise InputError(
            f"{directory}: holds no study, expected the directory of kdjax compare or kdjax sweep"
        )
    return findings


def _audit_sweep(directory: Path, findings: AuditFindings) -> None:
    """Audit every cell, and what the sweep makes of them."""
    path = directory / SWEEP

    # Every study that is there is audited, also one that the recipe does not name.
    studies = {}
    cell_dirs = sorted((directory / "cells").glob("*/"))
    for number, cell in enumerate(cell_dirs, start=1):
        findings.stage(f"study {number} of {len(cell_dirs)}: {cell.name}")
        studies[cell.name] = audit_study(cell, directory / "shared", findings)

    # The sweep's file follows from the studies' results, which are taken as they were written:
    # what is wrong within one is a difference of its own.
    content = findings.read(path)
    if content:
        with findings.record_errors(path):
            recorded = sweep_of(content, path)
            config = from_dict(plain(recorded.config))
            cells = cells_of(config)
            if shares_trunk(config):
                audit_trunks(directory, config, findings)
            of_cells = [
                results_of(studies[cell.name], directory / "cells" / cell.name / RESULTS)
                for cell in cells
            ]
            expected = collect(config, cells, of_cells)
            findings.expect_equal(
                path,
                without_versions(to_plain(recorded)),
                plain(without_versions(to_plain(expected))),
            )
    findings.lines.append(
        f"{directory}: worked out again: what the sweep makes of its studies, {len(studies)}"
    )
