"""A run's student with a head for a task: fine-tuned once more, as the run's protocol did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kdjax.config import EvaluationConfig
from kdjax.config.suites import suite_tasks
from kdjax.errors import InputError, nearest
from kdjax.evaluation.finetuning import FinetunedModel, FinetuningTrial, finetune_one
from kdjax.evaluation.finetuning.by_protocol import encoder_of, key_of_one
from kdjax.evaluation.finetuning.saved import RunningState
from kdjax.evaluation.finetuning.scoring import score_trial
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.models.families.task_heads import FinetunedHead
from kdjax.progress import Reporter
from kdjax.study.runs.recorded_run import RecordedRun
from kdjax.study.runs.retuning import (
    compare_trial,
    intermediate_encoder,
    load_run_tasks,
    recorded_tuning,
    retuned_protocol,
    setup_of,
    trial_directory,
)

EXPORTED = "exported"
"""Folder of a run's fine-tuning that holds the state of what is tuned for an export."""


@dataclass(frozen=True)
class TunedStudent:
    """A student that was fine-tuned on a task.

    Attributes:
        task: name of the task.
        protocol: protocol whose setting was taken.
        encoder: parameters of the encoder.
        head: its head.
        trial: what it scores.
        as_recorded: whether these are the scores that the run recorded, in words.
    """

    task: str
    protocol: str
    encoder: Mapping[str, Any]
    head: FinetunedHead
    trial: FinetuningTrial
    as_recorded: str


def check_task(run: RecordedRun, task: str, protocol: str) -> str:
    """Check that a run was fine-tuned on a task; return the protocol whose setting is taken.

    Args:
        run: the finished run.
        task: name of the task.
        protocol: protocol whose setting is taken; empty: the only one there is.

    Raises:
        InputError: it was not, or not by this protocol.
    """
    names = _task_names(run.config.evaluation)
    if task not in names:
        raise InputError(
            f"--task is {task!r:.80}{nearest(task, names)}, expected a task that the run was "
            "measured on"
        )
    protocol = retuned_protocol(run, protocol)
    recorded_tuning(run, protocol, task)
    return protocol


def tune_again(
    run: RecordedRun,
    params: Mapping[str, Any],
    task_name: str,
    protocol: str,
    reporter: Reporter,
    *,
    glue: str = "",
) -> TunedStudent:
    """Fine-tune a run's student on a task, with the setting that its protocol chose.

    What was stopped goes on.

    Args:
        run: the run.
        params: parameters of its student.
        task_name: name of the task.
        protocol: `grid` or `fixed`.
        reporter: shows what goes on.
        glue: where GLUE lies now; empty: where the recipe says.

    Raises:
        InputError: the task's files are missing or damaged, or the training diverges.
    """
    # The setting that was chosen, and the task's rows
    evaluation = run.config.evaluation
    if glue:
        evaluation = dataclasses.replace(evaluation, glue=glue)
    recorded = recorded_tuning(run, protocol, task_name)
    reporter.status(f"reading {task_name}")
    tasks = load_run_tasks(run, evaluation, [task_name])
    task = tasks[task_name]
    setup = setup_of(run)

    # The encoder that some tasks start from lies where the run kept it.
    start = None
    if recorded.intermediate:
        reporter.status(f"fine-tuning on {recorded.intermediate}, to start from")
        start = intermediate_encoder(run, setup, params, tasks[recorded.intermediate])

    # Trained as it was then, by the seed of the run
    encoder = encoder_of(params, start)
    seed = run.result.seed
    key = key_of_one(setup, encoder, task, run.finetuning, recorded.chosen, seed)
    saved = RunningState(trial_directory(run, EXPORTED, protocol), task_name, key)
    reporter.status(f"fine-tuning on {task_name}, {protocol}")
    model = finetune_one(
        setup, encoder, task, run.finetuning, recorded.chosen, seed=seed, saved=saved
    )
    trial = score_trial(model, task, TrialSpec(recorded.chosen, seed))
    saved.remove()
    if trial.diverged:
        raise InputError(
            f"{run.directory}: fine-tuning on {task_name} by {protocol} diverges at step "
            f"{trial.diverged_step}, expected a model"
        )
    return TunedStudent(
        task=task_name,
        protocol=protocol,
        encoder=jax.device_get(model.encoder),
        head=FinetunedHead(_head_params(model), run.finetuning.pool, task.classes),
        trial=trial,
        as_recorded=compare_trial(recorded, trial),
    )


def _task_names(evaluation: EvaluationConfig) -> list[str]:
    """Return the names of the tasks that a run was measured on: one's own, then the suite's."""
    names = list(evaluation.tasks)
    if evaluation.suite:
        names += [task.name for task in suite_tasks(evaluation.suite, evaluation.suite_tasks)]
    return names


def _head_params(model: FinetunedModel) -> dict[str, Any]:
    """Return a head's parameters, whose output is in the labels' own unit.

    The head of a regression was trained on standardised labels: their mean and their spread go into
    its last layer.
    """
    head: dict[str, Any] = jax.device_get(model.params["model"]["task_head"])
    output = {name: np.asarray(values, np.float64) for name, values in head["output"].items()}
    scale = model.scale
    head["output"] = {
        "kernel": (output["kernel"] * scale.spread).astype(np.float32),
        "bias": (output["bias"] * scale.spread + scale.mean).astype(np.float32),
    }
    return head
