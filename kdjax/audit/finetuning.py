"""The audit of fine-tuning: trials are those of the recipe, and as their own files have them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax.audit.findings import AuditFindings
from kdjax.config import FinetuneConfig
from kdjax.evaluation.finetuning.intermediate import DIRECTORY
from kdjax.evaluation.finetuning.protocols import seeds_of
from kdjax.evaluation.finetuning.results import FinetunedTask, FinetuningTrial
from kdjax.evaluation.finetuning.saved import check_state
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial_files import read_finished, trial_path
from kdjax.results.runs import ReferenceModel, RunResult
from kdjax.storage.typed_json import to_plain
from kdjax.study.runs.run_backup import FINETUNING


def audit_finetuning(
    path: Path,
    row: RunResult | ReferenceModel,
    seed: int,
    settings: FinetuneConfig,
    findings: AuditFindings,
) -> None:
    """Hold a model's trials against the recipe, and against their files where these are there.

    Args:
        path: the model's result.json, beside the directory of its fine-tuning.
        row: its content.
        seed: seed of the model.
        settings: settings of its fine-tuning.
        findings: collects the differences.
    """
    directory = path.parent / FINETUNING
    for name, detail in row.details.items():
        if isinstance(detail, FinetunedTask):
            field = f"details.{name}"
            _audit_plan(path, field, detail, seed, settings, findings)
            if directory.is_dir():
                of_task = directory / detail.protocol / detail.task
                _audit_files(path, field, detail, of_task, findings)
    # Encoders that were tuned on another task first.
    for state in sorted((directory / DIRECTORY).glob("*.safetensors")):
        with findings.record_errors(state):
            check_state(state)


def _audit_plan(
    path: Path,
    field: str,
    task: FinetunedTask,
    seed: int,
    settings: FinetuneConfig,
    findings: AuditFindings,
) -> None:
    """Audit which trials were made, and which encoder they started from."""
    expected = _planned(task.protocol, seed, settings)
    recorded = []
    for trial in task.trials:
        tried = trial.setting
        # Steps follow from epochs and rows where they are not set.
        steps = tried.steps if tried.epochs is None else None
        kind = (tried.learning_rate, tried.batch_size, tried.epochs, steps)
        recorded.append((*kind, trial.seed, trial.draw))
    if recorded != expected:
        place = f"{path}: {field}.trials"
        findings.add(
            place, f"{len(recorded)} trial(s)", f"the {len(expected)} that the recipe makes"
        )
    start = settings.intermediate if task.task in settings.intermediate_tasks else ""
    findings.expect_equal(path, task.intermediate, start, f"{field}.intermediate")


def _planned(protocol: str, seed: int, settings: FinetuneConfig) -> list[tuple[Any, ...]]:
    """Return the recipe's trials: learning rate, batch size, epochs, steps, seed and draw."""
    learning_rate = settings.learning_rate
    epochs = settings.epochs if settings.steps is None else None
    tried: list[tuple[Any, ...]] = [(learning_rate, settings.batch_size, epochs, settings.steps)]
    draws: Sequence[int | None] = (None,)
    if protocol == "grid":
        tried = []
        # The order in which they are tried, of which the first of equals is chosen.
        for count, size in itertools.product(settings.epoch_counts, settings.batch_sizes):
            tried += [
                (learning_rate, size, count, None) for learning_rate in settings.learning_rates
            ]
    elif protocol == "few_shot":
        few = settings.few_shot
        tried = [(learning_rate, min(settings.batch_size, few.examples), None, few.steps)]
        draws = range(few.draws)
    seeds = seeds_of(seed, settings.seeds)
    planned = []
    for kind, draw, trial_seed in itertools.product(tried, draws, seeds):
        planned.append((*kind, trial_seed, draw))
    return planned


def _audit_files(
    path: Path, field: str, task: FinetunedTask, directory: Path, findings: AuditFindings
) -> None:
    """Audit the file of each trial, and the trial against it."""
    for number, trial in enumerate(task.trials):
        name = TrialSpec(trial.setting, trial.seed, trial.draw).name
        file = trial_path(directory, name)
        if not file.exists():
            findings.add(file, "no file", "one for every trial")
            continue
        with findings.record_errors(file):
            finished, _ = read_finished(file)
            expected = _as_kept(finished.trial, is_chosen=trial.setting == task.chosen)
            findings.expect_equal(
                path, to_plain(trial), to_plain(expected), f"{field}.trials.{number}"
            )


def _as_kept(trial: FinetuningTrial, *, is_chosen: bool) -> FinetuningTrial:
    """Return a trial as results have it: outcomes of rows are kept of what is scored alone."""
    if is_chosen:
        return trial
    return dataclasses.replace(trial, rows=None)
