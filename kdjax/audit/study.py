"""The audit of a study: prices, text, teacher, stored outputs, runs and verdicts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from kdjax.arms.recipe_arms import finetuning_of
from kdjax.audit.artifacts import audited_artifacts, text_directory
from kdjax.audit.costs import audited_costs
from kdjax.audit.files import audit_files
from kdjax.audit.findings import AuditFindings
from kdjax.audit.finetuning import audit_finetuning
from kdjax.audit.recorded import RecordedStudy, recorded_study
from kdjax.audit.results import audit_results
from kdjax.audit.run import RunAudit
from kdjax.audit.scores import audit_scores
from kdjax.results.store import RESULTS, run_result
from kdjax.storage.files import read_json
from kdjax.study.measures.reference_models import read_measured
from kdjax.study.runs.run_backup import RESULT, run_name


def audit_study(out: Path, shared: Path | None, findings: AuditFindings) -> dict[str, Any]:
    """Audit all of a study.

    Args:
        out: the study's directory.
        shared: directory that the studies of a sweep share; None: it is no sweep's.
        findings: collects the differences, and a line that says what was worked out anew.

    Returns:
        The content of results.json; empty where it is missing.
    """
    results = findings.read(out / RESULTS)
    study = recorded_study(out, shared, results, findings)
    if study is not None:
        _audit(study)
    return results


def _audit(study: RecordedStudy) -> None:
    """Audit what runs share, then what each arm costs, then each run, then their results."""
    findings = study.findings
    # First what is wrong with a file by itself: it says which field.
    findings.stage("auditing files, text and teacher")
    audit_files(study.out, text_directory(study), study.artifact_dirs["teacher"], findings)
    artifacts = audited_artifacts(study)
    findings.stage("counting what a step of each arm costs")
    costs = audited_costs(artifacts)
    findings.stage("recounting the runs")
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    runs = list(itertools.product(costs, study.config.seeds))
    for number, (name, seed) in enumerate(runs, start=1):
        findings.status(f"recounting run {number} of {len(runs)}: {run_name(name, seed)}")
        directory = study.out / "runs" / run_name(name, seed)
        with findings.record_errors(directory):
            run = RunAudit(artifacts, study.arms[name], costs[name], seed, directory)
            rows[name, seed] = run.audit()
    findings.stage("adding up the scores")
    _audit_models(study)
    findings.stage("judging again")
    audit_results(artifacts, costs, rows)

    # Counts tell a clean result from an audit that looked at nothing.
    tokens = "counted"
    if artifacts.corpus is None:
        tokens = f"not counted, there is no whole text in {text_directory(study)}"
    findings.lines.append(
        f"{study.out}: worked out again: prices {study.tally['prices']}, runs {len(rows)}, ledger "
        f"entries {study.tally['entries']}, verdicts {len(study.results.get('verdicts', ()))}; "
        f"tokens {tokens}"
    )


def _audit_models(study: RecordedStudy) -> None:
    """Audit what runs and references scored, each within its own directory."""
    findings = study.findings
    evaluation = study.config.evaluation
    for arm, seed in itertools.product(study.arms.values(), study.config.seeds):
        path = study.out / "runs" / run_name(arm.name, seed) / RESULT
        if path.exists():
            with findings.record_errors(path):
                run = run_result(read_json(path), path)
                audit_scores(path, run, evaluation, findings)
                settings = finetuning_of(study.config, arm)
                audit_finetuning(path, run, seed, settings, findings)

    # An untrained start's directory ends in its seed; a teacher is not fine-tuned.
    for path in sorted(study.artifact_dirs["references"].glob(f"*/{RESULT}")):
        with findings.record_errors(path):
            reference = read_measured(path)
            audit_scores(path, reference, evaluation, findings)
            seed_text = path.parent.name.rpartition("-seed")[2]
            if seed_text.isdecimal():
                settings = evaluation.finetune
                audit_finetuning(path, reference, int(seed_text), settings, findings)
