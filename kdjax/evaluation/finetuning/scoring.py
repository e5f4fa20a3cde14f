"""Predictions of a fine-tuned model, and their scores."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.labels import labels_of
from kdjax.evaluation.finetuning.results import FinetuningTrial, encode_errors, encode_right, mean
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.step import compiled_forward
from kdjax.evaluation.finetuning.trial import FinetunedModel
from kdjax.evaluation.length_buckets import compute_over_rows
from kdjax.evaluation.metric import best_constant, constant_score, scores


def predict(model: FinetunedModel, split: Split) -> NDArray[Any]:
    """Predict the labels of rows, in batches of rows of like length.

    Args:
        model: a fine-tuned model.
        split: N rows; their labels are not read.

    Returns:
        `[N]`: int32 class indices, or float32 numbers in the labels' units.

    Raises:
        FloatingPointError: the model's outputs are not finite.
    """
    step_key = model.step_key
    compute = functools.partial(compiled_forward(step_key), model.params)
    outputs = compute_over_rows(
        compute, split, step_key.model.max_positions, batch_parts=step_key.layout.batch_parts
    )
    if not np.isfinite(outputs).all():
        raise FloatingPointError("the model's outputs are not finite")
    if not step_key.regression:
        classes: NDArray[np.int32] = outputs.argmax(axis=1).astype(np.int32)
        return classes
    numbers = outputs[:, 0].astype(np.float64) * model.scale.spread + model.scale.mean
    return numbers.astype(np.float32)


def score_trial(model: FinetunedModel, task: Task, spec: TrialSpec) -> FinetuningTrial:
    """Score a trained model on the selection rows and on each result's rows.

    One that diverged is scored as one that always says the answer that is best on the training
    rows. One that scores no more on the selection rows than the best constant there failed.

    Args:
        model: model trained on the task.
        task: task whose rows are scored.
        spec: what was trained.
    """
    # Numbers may leave the finite ones in the last update, after the last loss.
    diverged_step = model.diverged_step or None
    predictor = functools.partial(predict_constant, task)
    if diverged_step is None:
        predictor = functools.partial(predict, model)
    try:
        selected = predictor(task.selection)
        predicted = {name: predictor(split) for name, split in task.reported.items()}
    except FloatingPointError:
        diverged_step = spec.setting.steps
        selected = predict_constant(task, task.selection)
        predicted = {name: predict_constant(task, split) for name, split in task.reported.items()}

    selection = mean(scores(task.metrics, selected, labels_of(task.selection)))
    metrics = {}
    for name, split in task.reported.items():
        metrics[name] = scores(task.metrics, predicted[name], labels_of(split))
    return FinetuningTrial(
        setting=spec.setting,
        seed=spec.seed,
        draw=spec.draw,
        selection=selection,
        metrics=metrics,
        failed=diverged_step is not None or selection <= selection_baseline(task),
        diverged_step=diverged_step,
        rows=_outcomes(task, predicted),
    )


def predict_constant(task: Task, split: Split) -> NDArray[Any]:
    """Predict without the text, `[N]`: the constant that is best on the training rows."""
    dtype = np.float32 if task.regression else np.int32
    return np.full(len(split), best_constant(task), dtype)


def selection_baseline(task: Task) -> float:
    """Compute the most that a constant scores on the selection rows."""
    return constant_score(task, labels_of(task.selection))


def _outcomes(task: Task, predicted: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Encode each reported row's outcome: whether it is right, or its squared error."""
    encode = encode_errors if task.regression else encode_right
    outcomes = {}
    for name, split in task.reported.items():
        outcomes[name] = encode(predicted[name], labels_of(split))
    return outcomes
