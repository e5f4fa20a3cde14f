"""Each protocol makes its trials, and refuses tasks that cannot be tuned on."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from kdjax.config import FewShotConfig, FinetuneConfig
from kdjax.data.tasks.task import Task
from kdjax.errors import InputError
from kdjax.evaluation.finetuning.protocols import (
    check_tasks,
    draw_rows,
    seeds_of,
    specs_of,
    with_rows,
)
from tests.evaluation import handmade

TASK = handmade.task()
SETTINGS = FinetuneConfig(
    learning_rates=(1e-5, 1e-4), batch_sizes=(8, 16), epoch_counts=(1, 2), seeds=2
)


def skewed(counts: tuple[int, ...]) -> Task:
    """Return a task with so many training rows of each class."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    rows = handmade.inputs(len(labels), np.random.default_rng(0))
    classes = tuple(f"class {n}" for n in range(len(counts)))
    return dataclasses.replace(TASK, classes=classes, train=handmade.ragged(rows, labels))


def test_fixed_has_one_setting_and_every_seed() -> None:
    specs = specs_of(TASK, SETTINGS, "fixed", 3, 80)
    assert [spec.seed for spec in specs] == seeds_of(3, 2)
    (setting,) = {spec.setting for spec in specs}
    # 200 rows in one bucket: seven batches of 32, three epochs.
    assert (setting.learning_rate, setting.batch_size) == (1e-4, 32)
    assert (setting.epochs, setting.steps) == (3, 21)


def test_fixed_by_steps_has_no_epochs() -> None:
    (spec,) = specs_of(TASK, FinetuneConfig(steps=5), "fixed", 0, 80)
    assert (spec.setting.epochs, spec.setting.steps) == (None, 5)


def test_grid_has_every_combination() -> None:
    specs = specs_of(TASK, SETTINGS, "grid", 0, 80)
    tried = {(s.setting.epochs, s.setting.batch_size, s.setting.learning_rate) for s in specs}
    assert tried == set(itertools.product((1, 2), (8, 16), (1e-5, 1e-4)))
    assert len(specs) == 2 * len(tried)


def test_grid_steps_follow_from_epochs_and_batch() -> None:
    steps = {}
    for spec in specs_of(TASK, SETTINGS, "grid", 0, 80):
        steps[spec.setting.epochs, spec.setting.batch_size] = spec.setting.steps
    assert steps == {(1, 8): 25, (2, 8): 50, (1, 16): 13, (2, 16): 26}


def test_few_shot_has_every_draw_with_every_seed() -> None:
    settings = dataclasses.replace(SETTINGS, few_shot=FewShotConfig(examples=10, draws=3, steps=7))
    specs = specs_of(TASK, settings, "few_shot", 0, 80)
    pairs = [(spec.draw, spec.seed) for spec in specs]
    assert pairs == list(itertools.product(range(3), seeds_of(0, 2)))
    (setting,) = {spec.setting for spec in specs}
    assert (setting.batch_size, setting.steps) == (10, 7)


def test_names_of_trials_are_distinct() -> None:
    specs = specs_of(TASK, SETTINGS, "grid", 0, 80) + specs_of(TASK, SETTINGS, "few_shot", 0, 80)
    assert len({spec.name for spec in specs}) == len(specs)


def test_first_seed_is_the_models_and_all_differ() -> None:
    seeds = seeds_of(7, 50)
    assert seeds[0] == 7
    assert len(set(seeds)) == 50
    # More seeds leave those before as they are.
    assert seeds_of(7, 3) == seeds[:3]


@pytest.mark.parametrize(
    ("counts", "examples", "expected"),
    [
        ((50, 50), 10, [5, 5]),
        ((50, 50, 50), 9, [3, 3, 3]),
        ((97, 3), 10, [7, 3]),
        ((60, 40), 100, [60, 40]),
    ],
)
def test_draw_has_classes_as_evenly_as_their_rows_allow(
    counts: tuple[int, ...], examples: int, expected: list[int]
) -> None:
    task = skewed(counts)
    rows = draw_rows(task, examples, 0)
    assert len(set(rows)) == examples
    assert np.bincount(task.train.labels[rows]).tolist() == expected


def test_draws_differ_and_each_is_always_the_same() -> None:
    draws = [tuple(draw_rows(TASK, 20, draw)) for draw in range(4)]
    assert len(set(draws)) == 4
    assert draws == [tuple(draw_rows(TASK, 20, draw)) for draw in range(4)]


def test_draw_of_a_regression_has_as_many_rows() -> None:
    rows = draw_rows(handmade.task(handmade.grades), 20, 0)
    assert len(set(rows)) == 20


def test_subset_has_the_chosen_rows() -> None:
    chosen = np.array([5, 2, 190])
    few = with_rows(TASK, chosen)
    assert few.train.labels.tolist() == TASK.train.labels[chosen].tolist()
    whole = TASK.train.batch(chosen, 8)
    np.testing.assert_array_equal(few.train.batch(np.arange(3), 8)["tokens"], whole["tokens"])
    assert few.selection is TASK.selection


def test_subset_of_pairs_keeps_where_second_texts_begin() -> None:
    pairs = dataclasses.replace(TASK.train, second=np.arange(200, dtype=np.int32))
    assert pairs.take(np.array([7, 3])).second.tolist() == [7, 3]


def test_more_examples_than_rows_are_refused() -> None:
    settings = FinetuneConfig(few_shot=FewShotConfig(examples=201))
    message = r"few_shot.examples is 201, expected at most the 200 training rows of task handmade"
    with pytest.raises(InputError, match=message):
        check_tasks([TASK], settings, ["few_shot"], 80)
    # Who asks for no few-shot trials is not refused.
    check_tasks([TASK], settings, ["fixed"], 80)


def test_training_rows_of_one_class_are_refused() -> None:
    with pytest.raises(InputError, match="task handmade: its 9 training rows have one class"):
        check_tasks([skewed((9,))], FinetuneConfig(), ["fixed"], 80)


def test_rows_longer_than_the_positions_are_refused() -> None:
    long = {"handmade": handmade.ragged(handmade.inputs(3, np.random.default_rng(0), 40, 40))}
    task = dataclasses.replace(TASK, reported=long)
    message = "a row of handmade has 40 tokens, expected at most the model's 32 positions"
    with pytest.raises(InputError, match=message):
        check_tasks([task], FinetuneConfig(), ["grid"], 32)


def test_missing_intermediate_task_is_refused() -> None:
    settings = FinetuneConfig(intermediate="mnli")
    message = "intermediate is 'mnli', expected a task of the recipe: handmade"
    with pytest.raises(InputError, match=message):
        check_tasks([TASK], settings, ["fixed"], 80)


def test_probes_alone_need_no_intermediate_task() -> None:
    check_tasks([TASK], FinetuneConfig(intermediate="mnli"), ["probe"], 80)
