"""The protocols: which trials each of them makes of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kdjax.config import FinetuneConfig
from kdjax.data.tasks.task import Task
from kdjax.errors import InputError
from kdjax.evaluation.finetuning.batches import Order
from kdjax.evaluation.finetuning.labels import labels_of
from kdjax.evaluation.finetuning.results import Setting
from kdjax.evaluation.finetuning.spec import TrialSpec

FinetuningProtocol = Literal["fixed", "grid", "few_shot"]
"""The protocols that fine-tune."""
DRAWS = 20_240_430
"""First number of the seeds of few-shot draws: rows are the same for every model and seed."""


def specs_of(
    task: Task, settings: FinetuneConfig, protocol: FinetuningProtocol, seed: int, longest: int
) -> list[TrialSpec]:
    """Return the trials of a protocol.

    `fixed` has one setting for all tasks (as Izsak et al. 2021, arXiv 2104.07705, and Geiping and
    Goldstein 2022, arXiv 2212.14034, compare models). `grid` has every combination of learning
    rate, batch size and epochs (as Bui et al. 2024, arXiv 2404.19319, tune each task). `few_shot`
    has the fixed setting on each draw of few rows. Each has them for every fine-tuning seed.

    Args:
        task: the task.
        settings: settings of fine-tuning.
        protocol: the protocol's name.
        seed: seed of the model that is fine-tuned.
        longest: largest length that the model takes.

    Raises:
        InputError: more few-shot examples than training rows.
    """
    seeds = seeds_of(seed, settings.seeds)
    if protocol == "few_shot":
        hyperparameters = few_shot_setting(task, settings)
        draws = range(settings.few_shot.draws)
        specs = []
        for draw in draws:
            specs += [
                TrialSpec(hyperparameters, finetuning_seed, draw) for finetuning_seed in seeds
            ]
        return specs
    tried = [fixed_setting(task, settings, longest)]
    if protocol == "grid":
        tried = grid_settings(task, settings, longest)
    specs = []
    for hyperparameters in tried:
        specs += [TrialSpec(hyperparameters, finetuning_seed) for finetuning_seed in seeds]
    return specs


def few_shot_setting(task: Task, settings: FinetuneConfig) -> Setting:
    """Return the hyperparameters that all few-shot trials on a task share.

    A batch has at most as many rows as a draw.

    Args:
        task: task that is fine-tuned on.
        settings: settings of fine-tuning, with `few_shot`.

    Raises:
        InputError: the task has fewer training rows than a draw takes.
    """
    few = settings.few_shot
    check_few_shot(task, few.examples)
    batch_size = min(settings.batch_size, few.examples)
    return Setting(settings.learning_rate, batch_size, None, few.steps)


def fixed_setting(task: Task, settings: FinetuneConfig, longest: int) -> Setting:
    """Return the one setting that the recipe names, with its steps on the task.

    Args:
        task: the task, with its rows.
        settings: `evaluation.finetune`.
        longest: tokens of the longest row that the model takes.
    """
    learning_rate = settings.learning_rate
    if settings.steps is not None:
        return Setting(learning_rate, settings.batch_size, None, settings.steps)
    steps = steps_of(task, settings.batch_size, settings.epochs, longest)
    return Setting(learning_rate, settings.batch_size, settings.epochs, steps)


def grid_settings(task: Task, settings: FinetuneConfig, longest: int) -> list[Setting]:
    """Return every setting of the grid, in the order of its lists.

    Args:
        task: the task, with its rows.
        settings: `evaluation.finetune`.
        longest: tokens of the longest row that the model takes.
    """
    combinations = []
    for epochs in settings.epoch_counts:
        for batch_size in settings.batch_sizes:
            steps = steps_of(task, batch_size, epochs, longest)
            for learning_rate in settings.learning_rates:
                combinations.append(Setting(learning_rate, batch_size, epochs, steps))
    return combinations


def steps_of(task: Task, batch_size: int, epochs: int, longest: int) -> int:
    """Count the steps that so many epochs take.

    Args:
        task: the task, with its rows.
        batch_size: rows of a batch.
        epochs: number of epochs.
        longest: tokens of the longest row that the model takes.
    """
    return epochs * Order.from_split(task.train, batch_size, longest).steps_per_epoch


def seeds_of(seed: int, count: int) -> list[int]:
    """Return the fine-tuning seeds of a model; the first is the model's own seed.

    Args:
        seed: the model's seed.
        count: how many there are.
    """
    seeds = [seed]
    for number in range(1, count):
        words = np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)
        seeds.append(int(words[0]))
    return seeds


def draw_rows(task: Task, examples: int, draw: int) -> NDArray[np.intp]:
    """Draw training rows, ascending; a pure function of the task's labels and the draw's number.

    Classes take turns, so that each has as even a share as its rows allow.

    Args:
        task: the task.
        examples: number of rows.
        draw: number of the draw.

    Raises:
        InputError: the training split has fewer rows.
    """
    check_few_shot(task, examples)
    labels = labels_of(task.train)
    order = np.random.default_rng([DRAWS, draw]).permutation(len(labels))
    if task.regression:
        return np.sort(order[:examples])
    # A row's turn: how many rows of its class come before it in the order.
    turns = np.empty(len(order), np.intp)
    for label in range(len(task.classes)):
        members = np.flatnonzero(labels[order] == label)
        turns[members] = np.arange(len(members))
    return np.sort(order[np.argsort(turns, kind="stable")[:examples]])


def with_rows(task: Task, rows: NDArray[np.intp]) -> Task:
    """Return a task whose training rows are some of the task's own; all else stays.

    Args:
        task: task to take rows of.
        rows: `[n]`: indices of the training rows to keep.
    """
    return dataclasses.replace(task, train=task.train.take(rows))


def check_few_shot(task: Task, examples: int) -> None:
    """Check that a task has enough training rows for a few-shot draw.

    Args:
        task: task that is fine-tuned on.
        examples: rows of a draw.

    Raises:
        InputError: the task has fewer training rows.
    """
    rows = len(task.train)
    if examples > rows:
        raise InputError(
            f"evaluation.finetune.few_shot.examples is {examples:,}, expected at most the {rows:,} "
            f"training rows of task {task.name}"
        )


def check_tasks(
    tasks: Iterable[Task], settings: FinetuneConfig, protocols: Iterable[str], longest: int
) -> None:
    """Check before anything is trained that every task can be fine-tuned on.

    Args:
        tasks: all tasks of a recipe.
        settings: settings of fine-tuning.
        protocols: the recipe's protocols.
        longest: largest length that the model takes.

    Raises:
        InputError: a task's training rows have one class, rows are longer than the model's
            positions, there are fewer than a draw takes, or the intermediate task is not there.
    """
    by_name = {task.name: task for task in tasks}
    wanted = set(protocols) & set(get_args(FinetuningProtocol))
    for task in by_name.values():
        if wanted:
            check_task(task, longest)
        if "few_shot" in wanted:
            check_few_shot(task, settings.few_shot.examples)
    if wanted and settings.intermediate and settings.intermediate not in by_name:
        raise InputError(
            f"evaluation.finetune.intermediate is {settings.intermediate!r}, expected a task of "
            f"the recipe: {', '.join(by_name) or 'it has none'}"
        )


def check_task(task: Task, longest: int) -> None:
    """Check that a task can be fine-tuned on.

    Args:
        task: task that is fine-tuned on.
        longest: tokens of the longest row that the model takes.

    Raises:
        InputError: its training rows have one class, or rows are longer than the model's positions.
    """
    labels = labels_of(task.train)
    if not task.regression and len(np.unique(labels)) < 2:
        raise InputError(
            f"task {task.name}: its {len(labels):,} training rows have one class, expected two"
        )
    for name, split in {"train": task.train, "selection": task.selection, **task.reported}.items():
        length = int(split.lengths.max(initial=0))
        if length > longest:
            raise InputError(
                f"task {task.name}: a row of {name} has {length:,} tokens, expected at most the "
                f"model's {longest:,} positions"
            )
