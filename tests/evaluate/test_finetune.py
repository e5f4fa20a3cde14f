"""Fine-tuning learns a task from nothing, the same way every time."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from kdjax.config import FinetuneConfig
from kdjax.data.tasks import Split
from kdjax.errors import InputError
from kdjax.evaluate import finetune as tuning
from kdjax.evaluate.finetune import batch_rows, finetune
from kdjax.models import init
from tests.evaluate import handmade

SETTINGS = FinetuneConfig(steps=40, batch=16, learning_rate=3e-3)


def test_it_learns_a_separable_task():
    model, task = init(handmade.MODEL, 0), handmade.task()
    found = finetune(*model, task, SETTINGS, seed=0)
    assert task.baseline < 0.7
    assert found.test > 0.95
    assert found.dev > 0.95
    assert (found.steps, found.learning_rate) == (40, 3e-3)


def test_it_learns_a_regression_of_any_scale():
    found = finetune(*init(handmade.MODEL, 0), handmade.task(handmade.grades), SETTINGS, seed=0)
    assert found.test > 0.9


def test_labels_without_a_pattern_stay_at_chance():
    task, rng = handmade.task(test=400), np.random.default_rng(1)
    task = dataclasses.replace(task, train=Split(task.train.batch, rng.permutation(task.train.labels)))
    found = finetune(*init(handmade.MODEL, 0), task, SETTINGS, seed=0)
    assert abs(found.test - 0.5) < 0.15


def test_a_seed_decides_everything_and_dropout_is_the_models():
    task, settings = handmade.task(handmade.grades), FinetuneConfig(steps=6, batch=16, learning_rate=1e-3)
    params = init(handmade.MODEL, 0).params

    def r(seed, **options):
        return finetune(dataclasses.replace(handmade.MODEL, **options), params, task, settings, seed=seed).test

    assert r(0) == r(0) != r(1)
    assert r(0, dropout=0.3) == r(0, dropout=0.3) != r(0)


def test_the_models_parameters_stay_and_the_mlm_head_plays_no_part():
    model, task = init(handmade.MODEL, 0), handmade.task(handmade.grades)
    before = jax.tree.map(np.array, model.params)
    settings = dataclasses.replace(SETTINGS, steps=3)
    found = finetune(*model, task, settings, seed=0)
    jax.tree.map(np.testing.assert_array_equal, model.params, before)
    headless = {name: part for name, part in model.params.items() if name != "mlm"}
    assert finetune(model.config, headless, task, settings, seed=0) == found


def test_the_order_is_a_function_of_seed_and_epoch_and_leaves_no_row_out():
    def order(steps, seed=3):
        return np.concatenate(list(batch_rows(10, FinetuneConfig(steps=steps, batch=4), seed)))

    long = order(10)
    assert len(long) == 40
    for epoch in long.reshape(4, 10):
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in long.reshape(4, 10)}) == 4
    np.testing.assert_array_equal(order(5), long[:20])
    assert (order(10, seed=4) != long).any()


def test_a_batch_may_be_larger_than_the_task():
    (rows,) = batch_rows(3, FinetuneConfig(steps=1, batch=8), 0)
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [0, 1, 2]
    assert len(rows) == 8


def test_the_step_compiles_once_for_many_runs():
    task, settings = handmade.task(), dataclasses.replace(SETTINGS, steps=3)
    finetune(*init(handmade.MODEL, 0), task, settings, seed=0)
    before = tuning._step._cache_size(), tuning._classify._cache_size()
    for seed in range(1, 3):
        finetune(*init(handmade.MODEL, seed), task, settings, seed=seed)
    assert (tuning._step._cache_size(), tuning._classify._cache_size()) == before


def test_a_loss_that_is_not_finite_is_refused_by_its_step():
    model, task = init(handmade.MODEL, 0), handmade.task()
    task.train.batch["tokens"][7, 2] = 19
    task.train.batch["tokens"][[n for n in range(200) if n != 7]] %= 19
    word = np.array(model.params["embeddings"]["word"]["embedding"])
    word[19] = np.nan
    params = {**model.params, "embeddings": {**model.params["embeddings"], "word": {"embedding": word}}}
    first = next(n for n, rows in enumerate(batch_rows(200, SETTINGS, 0), start=1) if 7 in rows)
    assert first > 1
    with pytest.raises(InputError, match=rf"handmade: the loss is nan at step {first}, expected finite numbers"):
        finetune(model.config, params, task, SETTINGS, seed=0)


@pytest.mark.parametrize(("name", "value"), [("steps", -1), ("batch", 0), ("learning_rate", 0.0)])
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(InputError, match=rf"finetune.{name} is {value}, expected"):
        dataclasses.replace(SETTINGS, **{name: value})


def test_no_step_is_refused():
    with pytest.raises(InputError, match=r"finetune.steps is 0, expected at least 1"):
        finetune(*init(handmade.MODEL, 0), handmade.task(), dataclasses.replace(SETTINGS, steps=0), seed=0)
