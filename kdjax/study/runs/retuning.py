"""A finished run's student fine-tuned once more, as the run's protocol did: what of its record says
how, and what it needs for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from kdjax.config import EvaluationConfig
from kdjax.config.suites import suite_tasks
from kdjax.data.tasks.load import load_tasks
from kdjax.data.tasks.task import Task
from kdjax.errors import InputError
from kdjax.evaluation.finetuning import (
    EncoderSetup,
    FinetunedTask,
    FinetuningTrial,
    Setting,
    TunedEncoder,
    tuned_start,
)
from kdjax.evaluation.finetuning.trial import one_device
from kdjax.parallel.layout import Layout
from kdjax.study.runs.recorded_run import RecordedRun
from kdjax.study.runs.run_backup import FINETUNING

RetunedProtocol = Literal["grid", "fixed"]
"""The protocols whose setting a model is tuned by again; the first that a run has is the default.
"""


def retuned_protocol(run: RecordedRun, protocol: str) -> str:
    """Return the protocol whose setting is taken.

    Args:
        run: the run.
        protocol: the one that was asked for; empty: none.

    Raises:
        InputError: there is no such protocol, or the run was not measured by it.
    """
    valid = get_args(RetunedProtocol)
    if protocol and protocol not in valid:
        raise InputError(f"--protocol is {protocol!r:.80}, expected {' or '.join(valid)}")
    protocols = run.config.evaluation.protocols
    measured_by = [name for name in valid if name in protocols]
    if not measured_by or (protocol and protocol not in measured_by):
        raise InputError(
            f"{run.directory}: the run was measured by {', '.join(protocols)}, expected "
            f"{protocol or ' or '.join(valid)} among evaluation.protocols"
        )
    return protocol or measured_by[0]


def recorded_tuning(run: RecordedRun, protocol: str, task: str) -> FinetunedTask:
    """Return the record of a run's fine-tuning on a task.

    Args:
        run: the finished run.
        protocol: protocol of the fine-tuning.
        task: name of the task.

    Raises:
        InputError: its result does not say.
    """
    finetuned = run.result.details.get(f"{protocol}.{task}")
    if not isinstance(finetuned, FinetunedTask):
        raise InputError(
            f"{run.directory}: its result has no details of {protocol}.{task}, expected how the "
            "setting was chosen"
        )
    return finetuned


def load_run_tasks(
    run: RecordedRun,
    evaluation: EvaluationConfig,
    names: Collection[str],
    *,
    with_unlabelled: bool = False,
) -> dict[str, Task]:
    """Read and tokenise some of a run's tasks, and the one that some of them start from.

    Args:
        run: the run.
        evaluation: how it was measured, with the places of the tasks as they are now.
        names: names of the tasks.
        with_unlabelled: whether a suite's test rows are read, too.

    Raises:
        InputError: files are missing, damaged or of another layout, or rows cannot be used.
    """
    settings = run.finetuning
    needed = set(names)
    if settings.intermediate and needed.intersection(settings.intermediate_tasks):
        needed.add(settings.intermediate)
    own_tasks = {name: task for name, task in evaluation.tasks.items() if name in needed}
    # An empty choice would mean all tasks of the suite.
    of_suite = suite_tasks(evaluation.suite) if evaluation.suite else ()
    chosen = tuple(task.name for task in of_suite if task.name in needed)
    needed_only = dataclasses.replace(
        evaluation,
        tasks=own_tasks,
        suite=evaluation.suite if chosen else "",
        suite_tasks=chosen,
    )
    seq_len = evaluation.seq_len or run.config.data.seq_len
    loaded = load_tasks(needed_only, run.tokenizer(), seq_len, with_unlabelled=with_unlabelled)
    return {task.name: task for task in loaded}


def setup_of(run: RecordedRun) -> EncoderSetup:
    """Return a run's student, and how it is computed on this machine: on one device where it has
    not the run's."""
    try:
        layout = Layout.from_config(run.config.train.mesh)
    except InputError:
        layout = one_device()
    return EncoderSetup(run.arm.student_config, layout, run.config.train.compute.dtype)


def intermediate_encoder(
    run: RecordedRun, setup: EncoderSetup, params: Mapping[str, Any], task: Task
) -> TunedEncoder:
    """Read the encoder that was tuned on a task first, or tune it again.

    It lies where the run kept it.

    Args:
        run: the run.
        setup: its student, and how it is computed.
        params: the student's parameters.
        task: the intermediate task.
    """
    return tuned_start(
        setup,
        params,
        task,
        run.finetuning,
        seed=run.result.seed,
        directory=run.directory / FINETUNING,
    )


def trial_directory(run: RecordedRun, purpose: str, protocol: str) -> Path:
    """Return the directory in which the trial is kept that is done again.

    Args:
        run: the run.
        purpose: what the tuned model is for, a folder of the run's fine-tuning.
        protocol: protocol whose setting is taken.
    """
    return run.directory / FINETUNING / purpose / protocol


def setting_in_words(setting: Setting, seed: int) -> str:
    """Return the hyperparameters and the seed of a trial, in words."""
    length = f"{setting.steps:,} steps"
    if setting.epochs is not None:
        length = f"epochs {setting.epochs}, {length}"
    return (
        f"learning rate {setting.learning_rate:g}, batch {setting.batch_size}, {length}, seed "
        f"{seed}"
    )


def scores_in_words(trial: FinetuningTrial) -> str:
    """Return a trial's scores on each result's rows, in words."""
    return ", ".join(f"{result} {trial.score(result):.4f}" for result in trial.metrics)


def compare_trial(recorded: FinetunedTask, trial: FinetuningTrial) -> str:
    """Say whether a trial scores what the same trial scored in the run."""
    for before in recorded.chosen_trials:
        if before.seed == trial.seed:
            if (before.metrics, before.selection) == (trial.metrics, trial.selection):
                return "as the run recorded"
            scores = ", ".join(f"{before.score(result):.4f}" for result in before.metrics)
            return (
                f"not the same numbers as the run recorded, {scores}: another device, version or "
                "number of lanes, or other rows"
            )
    return "the run recorded no trial of this seed"
