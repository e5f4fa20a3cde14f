"""The audit of the small files of a study: each is read as kdjax itself would read it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdjax.audit.findings import AuditFindings
from kdjax.data.contamination import check
from kdjax.data.prepare import blocks, ngram_losses
from kdjax.data.shards import SHARDS
from kdjax.report import wall_clock
from kdjax.results.store import run_result
from kdjax.storage.files import read_json
from kdjax.storage.typed_json import read_typed
from kdjax.study import manifest
from kdjax.study.measures import reference_models
from kdjax.study.runs import run_backup
from kdjax.study.runs.run_manifest import RunManifest
from kdjax.training.teacher.directories import CARD, read_card


def audit_files(out: Path, text: Path, teacher: Path, findings: AuditFindings) -> None:
    """Add a difference for each small file that is not whole: its name, and the field in it.

    What a file says is compared elsewhere with what follows from the recipe; that it is there, too.

    Args:
        out: directory of the study.
        text: directory of its prepared text.
        teacher: directory of teachers that it made.
        findings: collects the differences.
    """
    path = out / manifest.NAME
    if path.exists():
        with findings.record_errors(path):
            manifest.read_manifest(path)
    with findings.record_errors(out / wall_clock.NAME):
        wall_clock.read(out)
    for path in sorted(out.glob(f"runs/*/{run_backup.MANIFEST}")):
        with findings.record_errors(path):
            read_typed(RunManifest, path)
    for path in sorted(out.glob(f"runs/*/{run_backup.RESULT}")):
        with findings.record_errors(path):
            run_result(read_json(path), path)
    for path in sorted(out.glob(f"references/*/{run_backup.RESULT}")):
        with findings.record_errors(path):
            reference_models.read_measured(path)
    for path in sorted(teacher.rglob(CARD)):
        with findings.record_errors(path):
            read_card(path.parent)
    for path in sorted(teacher.glob(f"seed*/{run_backup.RESULT}")):
        with findings.record_errors(path):
            read_typed(dict[str, Any], path)
    for path in sorted(text.glob(ngram_losses.PATTERN)):
        with findings.record_errors(path):
            ngram_losses.read(path)
    for path in sorted(text.glob(check.PATTERN)):
        with findings.record_errors(path):
            check.read(path)
    for path in sorted(text.glob(f"{SHARDS}/part-*.json")):
        with findings.record_errors(path):
            read_typed(blocks.FinishedBlock, path)
