"""What a run's fine-tuned model says of rows whose labels are hidden: it is tuned once more, as a
protocol's trial was, and predicts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.config import FinetuneConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.by_protocol import (
    TunedEncoder,
    encoder_of,
    finetune_one,
    key_of_one,
)
from kdjax.evaluation.finetuning.results import FinetuningTrial, Setting
from kdjax.evaluation.finetuning.saved import RunningState, split_digest
from kdjax.evaluation.finetuning.scoring import predict, predict_constant, score_trial
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial import EncoderSetup, FinetunedModel
from kdjax.evaluation.finetuning.trial_files import check_trial
from kdjax.storage.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class PredictedTask:
    """A task's predictions, as their file holds them.

    Attributes:
        key: digest of all that they follow from.
        trial: what the model that predicts scores on labelled rows.
        predictions: result -> for each hidden row the index of a class, or a number.
    """

    key: str
    trial: FinetuningTrial
    predictions: dict[str, tuple[float, ...]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the predictions of each result, `[N]`."""
        return {result: np.asarray(values) for result, values in self.predictions.items()}


def predict_unlabelled(
    setup: EncoderSetup,
    params: Mapping[str, Any],
    task: Task,
    settings: FinetuneConfig,
    hyperparameters: Setting,
    *,
    seed: int,
    directory: Path,
    start: TunedEncoder | None = None,
) -> PredictedTask:
    """Fine-tune a model on a task once, and predict the task's unlabelled rows.

    What is finished is read from its file, and what was stopped goes on. A model that diverged
    predicts what it is scored by: the constant that is best on the training rows.

    Args:
        setup: configuration of the model, and how it is computed.
        params: parameters of the model; copied, without its MLM head.
        task: the task, with unlabelled rows.
        settings: settings besides the hyperparameters.
        hyperparameters: learning rate, batch size and steps, say those that a grid chose.
        seed: fine-tuning seed.
        directory: holds `TASK.json` in the end, and the state until then.
        start: encoder to start from in place of `params`; None: `params`.

    Raises:
        InputError: training rows of one class, rows longer than the model's positions, or a file
            that cannot be written or read.
    """
    # What identifies the fine-tuning: a file with the same key is its result.
    encoder = encoder_of(params, start)
    hidden = {result: split_digest(split) for result, split in task.unlabelled.items()}
    key = key_of_one(setup, encoder, task, settings, hyperparameters, seed, hidden)

    path = directory / f"{task.name}.json"
    if path.is_file():
        finished: PredictedTask
        finished, has_seal = read_sealed(PredictedTask, path)
        if finished.key == key and has_seal:
            check_trial(finished.trial, f"{path}: trial")
            return finished

    saved = RunningState(directory, task.name, key)
    model = finetune_one(
        setup,
        encoder,
        task,
        settings,
        hyperparameters,
        seed=seed,
        saved=saved,
    )
    trial = score_trial(model, task, TrialSpec(hyperparameters, seed))
    predictions = {}
    for result, split in task.unlabelled.items():
        values = _predictions(model, task, split, diverged=trial.diverged)
        predictions[result] = tuple(values.tolist())
    predicted = PredictedTask(key, trial, predictions)
    write_sealed(path, predicted)
    saved.remove()
    return predicted


def _predictions(
    model: FinetunedModel, task: Task, split: Split, *, diverged: bool
) -> NDArray[Any]:
    """Predict rows by a model, or as one that diverged counts, `[N]`."""
    if diverged:
        return predict_constant(task, split)
    return predict(model, split)
