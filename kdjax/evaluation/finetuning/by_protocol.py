"""Fine-tuning on a task by a protocol: its trials, the chosen setting, the score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.config import FinetuneConfig
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning.labels import LabelScale
from kdjax.evaluation.finetuning.protocols import (
    FinetuningProtocol,
    check_task,
    draw_rows,
    specs_of,
    with_rows,
)
from kdjax.evaluation.finetuning.results import FinetunedTask, FinetuningTrial, Setting, mean
from kdjax.evaluation.finetuning.saved import RunningState, content_key
from kdjax.evaluation.finetuning.scoring import score_trial
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial import EncoderSetup, FinetunedModel, step_key_of, train_lanes
from kdjax.evaluation.finetuning.trial_files import read_trial, write_trial
from kdjax.evaluation.finetuning.trial_groups import groups, lanes_of
from kdjax.evaluation.metric import baseline
from kdjax.storage.files import digest
from kdjax.storage.typed_json import to_plain


@dataclass(frozen=True)
class TunedEncoder:
    """An encoder that was tuned on another task first.

    Attributes:
        task: name of that task.
        encoder: the encoder's parameters.
    """

    task: str
    encoder: Mapping[str, Any]


def encoder_of(params: Mapping[str, Any], start: TunedEncoder | None = None) -> dict[str, Any]:
    """Return the parameters that fine-tuning starts from: an encoder's, without an MLM head.

    Args:
        params: parameters of the model.
        start: encoder to start from in place of `params`; None: `params`.
    """
    source = params if start is None else start.encoder
    return {name: part for name, part in source.items() if name != "mlm"}


def finetune(
    setup: EncoderSetup,
    params: Mapping[str, Any],
    task: Task,
    settings: FinetuneConfig,
    *,
    protocol: FinetuningProtocol,
    seed: int,
    directory: Path | None = None,
    start: TunedEncoder | None = None,
    show: Callable[[int, int], None] = lambda done, count: None,
) -> FinetunedTask:
    """Fine-tune a model on a task by a protocol, and score it on the reported rows.

    AdamW on cross-entropy; for a regression on the mean squared error of labels standardised by the
    training rows. Dropout has the rates of the model. Nothing here is charged to a budget. With a
    directory, what is finished there is not trained again, and what was stopped goes on and ends
    with the same bits.

    Args:
        setup: configuration of the model, and how it is computed.
        params: parameters of the model; copied, without its MLM head.
        task: rows to train on, to choose by and to report.
        settings: settings of fine-tuning.
        protocol: which trials are made (`specs_of`).
        seed: seed of the model, from which fine-tuning seeds follow.
        directory: its PROTOCOL/TASK holds the trials; None: they are kept nowhere.
        start: encoder to start from in place of `params`; None: `params`.
        show: function called before trials begin, with how many are done and how many there are.

    Raises:
        InputError: training rows of one class, rows longer than the model's positions, more
            few-shot examples than rows, or a file that cannot be written or read.

    Example:
        >>> settings = FinetuneConfig(steps=4, learning_rate=1e-3)
        >>> setup = EncoderSetup(model)
        >>> result = finetune(setup, params, task, settings, protocol="fixed", seed=0)
        >>> result.chosen.steps, len(result.trials), result.scores.keys() == task.reported.keys()
        (4, 1, True)
    """
    max_positions = setup.config.max_positions
    check_task(task, max_positions)
    encoder = encoder_of(params, start)
    intermediate = start.task if start is not None else ""
    specs = specs_of(task, settings, protocol, seed, max_positions)
    task_directory = directory / protocol / task.name if directory is not None else None
    runner = _Runner(setup, encoder, task, settings, task_directory)

    lanes = lanes_of(settings.lanes, setup.config, setup.layout)
    trials: dict[TrialSpec, FinetuningTrial] = {}
    for group in groups(specs, lanes):
        show(len(trials), len(specs))
        trials |= runner.run(group)
    ordered = [trials[spec] for spec in specs]
    return _summarised(task, protocol, ordered, intermediate)


def finetune_one(
    setup: EncoderSetup,
    params: Mapping[str, Any],
    task: Task,
    settings: FinetuneConfig,
    hyperparameters: Setting,
    *,
    seed: int,
    saved: RunningState | None = None,
) -> FinetunedModel:
    """Fine-tune a model on a task once, for its parameters: to predict by, or to start from.

    Args:
        setup: configuration of the model, and how it is computed.
        params: parameters of the model; copied, without its MLM head.
        task: task whose training rows are trained on.
        settings: settings besides the hyperparameters.
        hyperparameters: learning rate, batch size and steps, say those that a grid chose.
        seed: fine-tuning seed.
        saved: where the state is saved every few minutes; None: nowhere.

    Raises:
        InputError: training rows of one class, or rows longer than the model's positions.
    """
    check_task(task, setup.config.max_positions)
    step_key = step_key_of(setup, task, settings)
    specs = [TrialSpec(hyperparameters, seed)]
    scale = LabelScale.from_task(task)
    (model,) = train_lanes(step_key, dict(params), task.train, scale, specs, settings.warmup, saved)
    return model


def key_of_one(
    setup: EncoderSetup,
    encoder: Mapping[str, Any],
    task: Task,
    settings: FinetuneConfig,
    hyperparameters: Setting,
    seed: int,
    *more: Any,
) -> str:
    """Compute the digest of all that a model of `finetune_one` follows from.

    Args:
        setup: configuration of the model, and how it is computed.
        encoder: parameters that it starts from.
        task: rows that it is trained on and measured on.
        settings: settings besides the hyperparameters.
        hyperparameters: learning rate, batch size and steps.
        seed: fine-tuning seed.
        more: what that which is made by the model follows from besides, as plain values.
    """
    content = content_key(step_key_of(setup, task, settings), settings, encoder, task)
    return digest([content, to_plain(hyperparameters), seed, *more])


class _Runner:
    """Trains groups of trials of a task, or reads what is finished of them."""

    def __init__(
        self,
        setup: EncoderSetup,
        encoder: Mapping[str, Any],
        task: Task,
        settings: FinetuneConfig,
        directory: Path | None,
    ):
        self._directory = directory
        self._encoder = encoder
        self._task = task
        self._settings = settings
        self._step_key = step_key_of(setup, task, settings)
        self._key = ""

    def run(self, group: Sequence[TrialSpec]) -> dict[TrialSpec, FinetuningTrial]:
        """Read the group's trials; if any is missing, train the whole group and write all of them.

        Args:
            group: trials that are trained side by side, as the lanes of one program.

        Returns:
            Trial's settings -> its scores, for every trial of the group.
        """
        finished = self._read(group)
        if len(finished) == len(group):
            return finished

        # Few-shot trials see the rows of their draw alone.
        task = self._task
        if group[0].draw is not None:
            few = self._settings.few_shot
            task = with_rows(task, draw_rows(task, few.examples, group[0].draw))
        saved = None
        if self._directory is not None:
            names = [spec.name for spec in group]
            key = digest([self._content(), names])
            saved = RunningState(self._directory, group[0].name, key)
        models = train_lanes(
            self._step_key,
            self._encoder,
            task.train,
            LabelScale.from_task(task),
            group,
            self._settings.warmup,
            saved,
        )

        trials = {}
        for spec, model in zip(group, models, strict=True):
            trials[spec] = score_trial(model, task, spec)
        if self._directory is not None:
            for spec, trial in trials.items():
                write_trial(self._directory, spec.name, self._content(), trial)
        # Only now is nothing lost with it.
        if saved is not None:
            saved.remove()
        return trials

    def _read(self, group: Sequence[TrialSpec]) -> dict[TrialSpec, FinetuningTrial]:
        """Return those trials of a group that are finished."""
        finished: dict[TrialSpec, FinetuningTrial] = {}
        if self._directory is None:
            return finished
        for spec in group:
            trial = read_trial(self._directory, spec.name, self._content())
            if trial is not None:
                finished[spec] = trial
        return finished

    def _content(self) -> str:
        """Compute the digest of all that a trial follows from, besides its name; once."""
        if not self._key:
            self._key = content_key(self._step_key, self._settings, self._encoder, self._task)
        return self._key


def _summarised(
    task: Task, protocol: str, trials: Sequence[FinetuningTrial], intermediate: str
) -> FinetunedTask:
    """Choose a setting, and average its trials."""
    # Settings in the order in which they were tried; of equals the first is chosen.
    selection: dict[Setting, float] = {}
    for setting in dict.fromkeys(trial.setting for trial in trials):
        scores = [trial.selection for trial in trials if trial.setting == setting]
        selection[setting] = float(np.mean(scores))
    chosen = max(selection, key=lambda setting: selection[setting])
    chosen_trials = [trial for trial in trials if trial.setting == chosen]

    # The mean is over all of them: one that failed is a result as well.
    metrics: dict[str, dict[str, float]] = {}
    for name in task.reported:
        metrics[name] = {}
        for metric in task.metrics:
            values = [trial.metrics[name][metric] for trial in chosen_trials]
            metrics[name][metric] = float(np.mean(values))

    # Outcomes of single rows are recorded of what is scored alone.
    recorded_trials = []
    for trial in trials:
        if trial.setting == chosen:
            recorded_trials.append(trial)
        else:
            recorded_trials.append(dataclasses.replace(trial, rows=None))
    return FinetunedTask(
        task=task.name,
        protocol=protocol,
        intermediate=intermediate,
        chosen=chosen,
        selection=selection[chosen],
        metrics=metrics,
        scores={name: mean(values) for name, values in metrics.items()},
        baseline=dict(baseline(task)),
        trials=tuple(recorded_trials),
        failed=sum(trial.failed for trial in chosen_trials),
        diverged=sum(trial.diverged for trial in chosen_trials),
    )
