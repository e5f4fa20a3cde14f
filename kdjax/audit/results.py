"""The audit of results.json: its rows are the runs', and all else follows from them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import kdjax
from kdjax.arms.charges import stored_features
from kdjax.audit.artifacts import AuditedArtifacts, text_directory
from kdjax.audit.recorded import RecordedStudy
from kdjax.data.contamination.check import PATTERN, Contamination
from kdjax.data.contamination.check import read as read_contamination
from kdjax.data.corpus import Corpus
from kdjax.data.prepare.ngram_losses import compute
from kdjax.errors import InputError
from kdjax.results.store import results_of
from kdjax.results.study import VERSION, Results
from kdjax.results.teacher_facts import TeacherFacts
from kdjax.results.text import CorpusFacts
from kdjax.results.tuning import Tuning
from kdjax.storage.paths import local_path
from kdjax.storage.typed_json import from_plain, to_plain
from kdjax.study.judgement.facts import corpus_facts
from kdjax.study.judgement.judge import Measured, judge
from kdjax.study.machine import versions
from kdjax.study.manifest import ArmCost
from kdjax.study.tuned import tuning_of

RunRows = Mapping[tuple[str, int], Mapping[str, Any]]
"""Arm and seed of a run -> content of its result.json."""


def audit_results(artifacts: AuditedArtifacts, costs: Mapping[str, ArmCost], rows: RunRows) -> None:
    """Audit results.json; where there is none, that is a difference already.

    Args:
        artifacts: what the study's runs share.
        costs: arm -> cost of its runs.
        rows: rows of the runs that are there.
    """
    study = artifacts.study
    path = study.results_path
    if not study.results:
        return
    with study.findings.record_errors(path):
        _audit_rows(study, rows)
        # All else follows from rows, recipe, text and teacher.
        recorded = results_of(study.results, path)
        rebuilt = _rebuilt(artifacts, costs, recorded)
        expected = without_versions(to_plain(rebuilt))
        values = without_versions(to_plain(recorded))
        # Another version may have other words, and without its cache nobody knows its facts.
        if recorded.kdjax != kdjax.__version__:
            expected |= {name: values[name] for name in ("differences", "same", "notes")}
        # Files before the third version were judged by other rules, which are gone.
        if study.results.get("version", 1) < VERSION:
            expected |= {name: values[name] for name in ("verdicts", "primary", "cases", "notes")}
        if stored_features(study.arms) and not artifacts.cache:
            expected |= {name: values[name] for name in ("cache", "notes")}
        study.findings.expect_equal(path, values, expected)


def _audit_rows(study: RecordedStudy, rows: RunRows) -> None:
    """Compare the rows of runs and references with their files, and endpoints with the recipe."""
    path = study.results_path
    content = study.results
    findings = study.findings
    recorded_runs = [[row["arm"], row["seed"]] for row in content["runs"]]
    pairs = itertools.product(study.config.seeds, study.arms)
    findings.expect_equal(path, recorded_runs, [[name, seed] for seed, name in pairs], "runs")
    for n, (name, seed) in enumerate(recorded_runs):
        if row := rows.get((name, seed)):
            findings.expect_equal(path, content["runs"][n], row, f"runs.{n}")
    directory = study.artifact_dirs["references"]
    measured = [findings.read(file) for file in sorted(directory.glob("*/result.json"))]
    for n, reference in enumerate(content["references"]):
        if {"metrics": reference["metrics"], "details": reference["details"]} not in measured:
            place = f"{path}: references.{n}"
            findings.add(place, reference["metrics"], f"those of one in {directory}")
    endpoints = [_endpoint(row["name"], row["better"], row["arms"]) for row in content["endpoints"]]
    findings.expect_equal(path, endpoints, _endpoints(study), "endpoints")


def _rebuilt(
    artifacts: AuditedArtifacts, costs: Mapping[str, ArmCost], recorded: Results
) -> Results:
    """Judge the recorded rows again."""
    study = artifacts.study
    teacher = None
    if artifacts.teacher:
        place = f"{study.results_path}: teacher"
        teacher = from_plain(TeacherFacts, dict(artifacts.teacher), place)
    measured = Measured(
        runs=recorded.runs,
        references=recorded.references,
        corpus=_corpus_facts(artifacts, recorded.corpus),
        endpoints=recorded.endpoints,
        teacher=teacher,
        cache=artifacts.cache,
        contamination=_contamination(artifacts, recorded.contamination),
        tuning=_tuning(study, recorded.tuning),
        wall_clock=recorded.wall_clock,
        looks=recorded.looks,
    )
    return judge(study.config, study.arms, costs, measured)


def _contamination(
    artifacts: AuditedArtifacts, recorded: Contamination | None
) -> Contamination | None:
    """Return the check for evaluation rows that is stored beside the text.

    Where none is stored, or several fit, it is the recorded one; None where the recipe turns the
    check off.
    """
    study = artifacts.study
    if study.config.evaluation.contamination.check == "off":
        return None
    # Where the text could not be looked at, nothing was stored.
    if recorded is not None and recorded.unchecked:
        return recorded
    stored = []
    for path in sorted(text_directory(study).glob(PATTERN)):
        # A file that is not whole is a difference already.
        with contextlib.suppress(InputError):
            check = read_contamination(path)
            if check is not None and _is_of(check, artifacts, recorded):
                stored.append(check)
    # Studies with other tasks may share the text; of one that recorded nothing, they tell nothing.
    if len(stored) == 1 and study.config.evaluation.task_results:
        return stored[0]
    return recorded


def _is_of(
    check: Contamination, artifacts: AuditedArtifacts, recorded: Contamination | None
) -> bool:
    """Return whether a check was of the study's text, and of the rows that are recorded."""
    if artifacts.corpus is not None and check.corpus != artifacts.corpus.manifest.digest:
        return False
    return recorded is None or check.tasks == recorded.tasks


def _tuning(study: RecordedStudy, recorded: Tuning | None) -> Tuning | None:
    """Return the record of the arms' tuning; the recorded one where the tuning's file is gone."""
    tuning = study.config.tuning
    if tuning and not local_path(tuning, "tuning").exists():
        return recorded
    return tuning_of(study.config)


def _corpus_facts(artifacts: AuditedArtifacts, recorded: CorpusFacts) -> CorpusFacts:
    """Return the facts of all texts; as recorded where one of them is gone."""
    study = artifacts.study
    texts = {name: study.artifact_dirs["texts"] / name for name in study.config.evaluation.texts}
    if artifacts.corpus is None or not all(directory.exists() for directory in texts.values()):
        return recorded
    opened = {name: Corpus.open(directory) for name, directory in texts.items()}
    # The text's own cross-entropies are counted again.
    return corpus_facts(study.config, artifacts.corpus, compute(artifacts.corpus), opened)


def _endpoints(study: RecordedStudy) -> list[dict[str, Any]]:
    """Return the endpoints of the recipe, each with its arms and its better direction."""
    evaluation = study.config.evaluation
    arms = list(study.arms)
    with_head = [name for name, arm in study.arms.items() if arm.trains_mlm_head]
    texts = ["", *(f".{name}" for name in evaluation.texts)]
    endpoints = [_endpoint(f"mlm_loss{text}", "lower", with_head) for text in texts]
    if evaluation.mlm_probe.tokens:
        endpoints += [_endpoint(f"mlm_probe{text}", "lower", arms) for text in texts]
    if evaluation.minimal_pairs.directory:
        for name in evaluation.minimal_pairs.sets:
            endpoints.append(_endpoint(f"minimal_pairs.{name}", "higher", with_head))
    endpoints += [_endpoint(name, "higher", arms) for name in evaluation.task_endpoints]
    return endpoints


def _endpoint(name: str, better: str, arms: list[str]) -> dict[str, Any]:
    """Return those fields of an endpoint in results.json that follow from the recipe alone."""
    return {"name": name, "better": better, "arms": arms}


def without_versions(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results without versions and wall-clock, which no recipe tells."""
    left_out = {*versions(), "wall_clock"}
    return {name: value for name, value in results.items() if name not in left_out}
