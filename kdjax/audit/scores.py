"""The audit of a model's scores: each follows from its details, a suite's mean from the tasks'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.audit.findings import AuditFindings
from kdjax.config import EvaluationConfig
from kdjax.data.tasks.suite import suite_mean
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.evaluation.finetuning.trial_files import check_trial
from kdjax.results.runs import PairScores, ProbedLayers, ProbeFit, ReferenceModel, RunResult
from kdjax.storage.typed_json import to_plain

NO_DETAILS = "details that say how it came about"


def audit_scores(
    path: Path,
    row: RunResult | ReferenceModel,
    evaluation: EvaluationConfig,
    findings: AuditFindings,
) -> None:
    """Add up what a model scored on tasks and minimal pairs from the details of the same file.

    Args:
        path: the model's result.json.
        row: its content.
        evaluation: settings of the evaluation.
        findings: collects the differences.
    """
    metrics: dict[str, float] = {}
    for name, detail in row.details.items():
        field = f"details.{name}"
        with findings.record_errors(path):
            if isinstance(detail, FinetunedTask):
                scores = _audit_finetuned(path, field, detail, findings)
                metrics |= {f"{detail.protocol}.{result}": s for result, s in scores.items()}
            elif isinstance(detail, ProbedLayers):
                metrics[name] = _audit_probed(path, field, detail, findings)
            elif isinstance(detail, PairScores):
                first = evaluation.minimal_pairs.scoring[0]
                metrics[name] = _audit_pairs(path, field, detail, findings)[first]
            elif isinstance(detail, ProbeFit):
                _audit_fit(path, field, detail, row.metrics[name], evaluation, findings)

    # The suite's means follow from what was added up above.
    for protocol in evaluation.protocols:
        mean = _suite_mean(evaluation.suite, protocol, metrics)
        if mean is not None:
            metrics[f"{protocol}.{evaluation.suite}"] = mean
    findings.expect_fields(path, row.metrics, metrics, "metrics")

    # A score whose details were cut out follows from nothing.
    kinds = (*evaluation.protocols, "minimal_pairs")
    for name, value in row.metrics.items():
        if name.partition(".")[0] in kinds and name not in metrics:
            findings.add(f"{path}: metrics.{name}", value, NO_DETAILS)


def _suite_mean(suite: str, protocol: str, metrics: Mapping[str, float]) -> float | None:
    """Compute a suite's mean by a protocol; None without a suite, or where a task is missing."""
    if not suite:
        return None
    scores = {}
    for name, score in metrics.items():
        kind, _, result = name.partition(".")
        if kind == protocol:
            scores[result] = score
    return suite_mean(suite, scores)


def _audit_finetuned(
    path: Path, field: str, task: FinetunedTask, findings: AuditFindings
) -> dict[str, float]:
    """Audit how a model was fine-tuned on a task; return result -> score by its chosen trials."""
    for number, trial in enumerate(task.trials):
        with findings.record_errors(path):
            check_trial(trial, f"{path}: {field}.trials.{number}")

    # The chosen setting has the best mean on the selection rows, the first of equals.
    selection: dict[Any, float] = {}
    for setting in dict.fromkeys(trial.setting for trial in task.trials):
        values = [trial.selection for trial in task.trials if trial.setting == setting]
        selection[setting] = math.fsum(values) / len(values)
    chosen = task.chosen
    best = max(selection.values())
    if not math.isclose(selection.get(chosen, -math.inf), best, abs_tol=1e-12):
        chosen = max(selection, key=lambda setting: selection[setting])
    trials = [trial for trial in task.trials if trial.setting == chosen]

    # Every figure of the task is a mean or a count over its trials.
    metrics: dict[str, dict[str, float]] = {}
    scores = {}
    for result, names in trials[0].metrics.items():
        metrics[result] = {}
        for name in names:
            values = [trial.metrics[result][name] for trial in trials]
            metrics[result][name] = math.fsum(values) / len(values)
        scores[result] = math.fsum(metrics[result].values()) / len(names)
    expected = {
        "chosen": to_plain(chosen),
        "selection": selection[chosen],
        "metrics": metrics,
        "scores": scores,
        "failed": sum(trial.failed for trial in trials),
        "diverged": sum(trial.diverged for trial in trials),
    }
    recorded = {name: to_plain(getattr(task, name)) for name in expected}
    findings.expect_equal(path, recorded, expected, field)
    return scores


def _audit_probed(path: Path, field: str, probed: ProbedLayers, findings: AuditFindings) -> float:
    """Audit a task's linear probes; return the score of the layer that the dev rows choose."""
    best = max(probed.layers, key=lambda layer: layer.dev)
    expected = {
        "layer": best.layer,
        "strength": best.strength,
        "last_layer": probed.layers[-1].test,
    }
    findings.expect_fields(path, to_plain(probed), expected, field)
    return best.test


def _audit_pairs(
    path: Path, field: str, pairs: PairScores, findings: AuditFindings
) -> dict[str, float]:
    """Audit scores on minimal pairs; return way to score -> mean accuracy over phenomena."""
    accuracies = {}
    for way, scored in pairs.scoring.items():
        phenomena = scored.phenomena.values()
        accuracies[way] = float(np.mean([score.accuracy for score in phenomena]))
        expected = {
            "accuracy": accuracies[way],
            "ties": sum(score.ties for score in phenomena),
        }
        findings.expect_fields(path, to_plain(scored), expected, f"{field}.scoring.{way}")
        counted = sum(score.pairs for score in phenomena)
        findings.expect_equal(path, pairs.pairs, counted, f"{field}.pairs")
        for name, score in scored.phenomena.items():
            place = f"{path}: {field}.scoring.{way}.phenomena.{name}.accuracy"
            # Each pair counts 1, 1/2 or 0.
            points = 2 * score.accuracy * score.pairs
            is_possible = 0 <= score.accuracy <= 1 and math.isclose(
                points, round(points), abs_tol=1e-6
            )
            if not is_possible:
                findings.add(place, score.accuracy, f"a share of {score.pairs} pairs")
    return accuracies


def _audit_fit(
    path: Path,
    field: str,
    fit: ProbeFit,
    loss: float,
    evaluation: EvaluationConfig,
    findings: AuditFindings,
) -> None:
    """Audit what an MLM probe gained in the second half of its tokens, and what follows."""
    tolerance = evaluation.mlm_probe.tolerance
    gain = fit.half - loss
    expected = {"gain": gain, "tolerance": tolerance, "converged": gain <= tolerance}
    findings.expect_fields(path, to_plain(fit), expected, field)
