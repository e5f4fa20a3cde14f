"""What fine-tuning on a task takes: how many steps and scoring batches of which shape."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdjax.config import FinetuneConfig
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning.batches import Order
from kdjax.evaluation.finetuning.protocols import (
    FinetuningProtocol,
    draw_rows,
    fixed_setting,
    specs_of,
    with_rows,
)
from kdjax.evaluation.finetuning.results import Setting
from kdjax.evaluation.finetuning.spec import TrialSpec
from kdjax.evaluation.finetuning.trial_groups import groups
from kdjax.evaluation.length_buckets import buckets_of


@dataclass(frozen=True)
class TaskBatchShape:
    """The shape of a batch of a task.

    Attributes:
        rows: rows of a lane, those that fill the batch up included.
        length: tokens of a row.
        lanes: trials side by side.
    """

    rows: int
    length: int
    lanes: int = 1


@dataclass
class Work:
    """Steps and scoring batches, by their shapes.

    Attributes:
        trials: number of trainings.
        steps: shape -> number of training steps.
        passes: shape -> number of batches that are scored.
    """

    trials: int = 0
    steps: Counter[TaskBatchShape] = field(default_factory=Counter)
    passes: Counter[TaskBatchShape] = field(default_factory=Counter)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.trials + other.trials, self.steps + other.steps, self.passes + other.passes
        )


@dataclass(frozen=True)
class BatchLimits:
    """The limits that a model and the devices set to batches.

    Attributes:
        longest: largest length that the model takes.
        lanes: the most trials side by side.
        batch_parts: parts that a batch is split into, over devices.
        tokens: tokens of a scoring batch of a device.
    """

    longest: int
    lanes: int
    batch_parts: int
    tokens: int


def work_of(
    task: Task, settings: FinetuneConfig, protocol: FinetuningProtocol, limits: BatchLimits
) -> Work:
    """Count the work of a protocol on a task, for one model.

    Args:
        task: the task; of its rows the lengths count, and labels where few rows are drawn.
        settings: settings of fine-tuning.
        protocol: the protocol's name.
        limits: how large the batches may be.

    Raises:
        InputError: more few-shot examples than training rows.
    """
    specs = specs_of(task, settings, protocol, 0, limits.longest)
    work = Work(trials=len(specs))
    for group in groups(specs, limits.lanes):
        work.steps += _steps(task, settings, group[0], len(group), limits)
    scored = _scored(task, limits)
    for shape, count in scored.items():
        work.passes[shape] += count * len(specs)
    return work


def work_of_start(task: Task, settings: FinetuneConfig, limits: BatchLimits) -> Work:
    """Count the work of tuning the encoder that other tasks start from: one training, no scores.

    Args:
        task: the intermediate task.
        settings: `evaluation.finetune`.
        limits: limits of batches.
    """
    hyperparameters = fixed_setting(task, settings, limits.longest)
    return Work(1, _setting_steps(task, hyperparameters, 1, limits))


def work_of_probe(task: Task, examples: int, limits: BatchLimits) -> Work:
    """Count the batches of a task's rows whose frozen states linear probes are fitted to.

    Args:
        task: the task.
        examples: the most training rows.
        limits: how large the batches may be.
    """
    work = Work(passes=_scored(task, limits))
    work.passes += _passes(task.train.lengths[:examples], limits)
    return work


def _steps(
    task: Task, settings: FinetuneConfig, spec: TrialSpec, lanes: int, limits: BatchLimits
) -> Counter[TaskBatchShape]:
    """Count the steps of trials that are trained side by side."""
    if spec.draw is not None:
        task = with_rows(task, draw_rows(task, settings.few_shot.examples, spec.draw))
    return _setting_steps(task, spec.setting, lanes, limits)


def _setting_steps(
    task: Task, hyperparameters: Setting, lanes: int, limits: BatchLimits
) -> Counter[TaskBatchShape]:
    """Count the steps of a setting by shape."""
    order = Order.from_split(task.train, hyperparameters.batch_size, limits.longest)
    epochs, remaining_steps = divmod(hyperparameters.steps, order.steps_per_epoch)
    lengths: Counter[int] = Counter()
    for bucket in order.buckets:
        lengths[bucket.length] += epochs * -(-len(bucket.rows) // hyperparameters.batch_size)
    # Steps of an epoch that does not come to its end
    if remaining_steps:
        first = epochs * order.steps_per_epoch
        lengths += Counter(
            step.length for step in order.iterate([0], first, first + remaining_steps)
        )
    rows = hyperparameters.batch_size + -hyperparameters.batch_size % limits.batch_parts
    return Counter({TaskBatchShape(rows, length, lanes): n for length, n in lengths.items() if n})


def _scored(task: Task, limits: BatchLimits) -> Counter[TaskBatchShape]:
    """Count the batches of the selection rows and the reported ones."""
    passes: Counter[TaskBatchShape] = Counter()
    for split in (task.selection, *task.reported.values()):
        passes += _passes(split.lengths, limits)
    return passes


def _passes(lengths: NDArray[np.int64], limits: BatchLimits) -> Counter[TaskBatchShape]:
    """Count the batches of rows of some lengths, each row once."""
    passes: Counter[TaskBatchShape] = Counter()
    for bucket in buckets_of(lengths, limits.longest, lambda n: _rows_of(n, limits)):
        rows = _rows_of(bucket.length, limits)
        passes[TaskBatchShape(rows, bucket.length)] += -(-len(bucket.rows) // rows)
    return passes


def _rows_of(length: int, limits: BatchLimits) -> int:
    """Count a scoring batch's rows of a length (`length_buckets.compute_over_rows`)."""
    return max(1, limits.tokens // length) * limits.batch_parts
