"""Fine-tuning learns a task from nothing, the same way every time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from kdjax.data.tasks.labelled import Split

from kdjax.config import FinetuneConfig, OptimizerConfig
from kdjax.errors import InputError
from kdjax.evaluation import finetune as tuning
from kdjax.evaluation.finetune import batch_rows, finetune, optimizer_of
from kdjax.models import init, init_task_head
from kdjax.training.optimizer import learning_rate
from tests.compilations import compilations
from tests.evaluation import handmade

SETTINGS = FinetuneConfig(steps=40, batch_size=16, learning_rate=3e-3)


def test_separable_task_is_learnt() -> None:
    model = init(handmade.MODEL, 0)
    task = handmade.task()
    result = finetune(*model, task, SETTINGS, seed=0)
    # Always naming the larger class scores far less.
    assert task.baseline < 0.7
    assert result.test > 0.95
    assert result.dev > 0.95
    assert (result.steps, result.learning_rate) == (40, 3e-3)


def test_regression_with_large_offset_is_learnt() -> None:
    result = finetune(*init(handmade.MODEL, 0), handmade.task(handmade.grades), SETTINGS, seed=0)
    assert result.test > 0.9


def test_shuffled_labels_score_at_chance() -> None:
    task = handmade.task(test=400)
    rng = np.random.default_rng(1)
    task = dataclasses.replace(
        task, train=Split(task.train.batch, rng.permutation(task.train.labels))
    )
    result = finetune(*init(handmade.MODEL, 0), task, SETTINGS, seed=0)
    # Six standard deviations of a guess, over 400 test rows.
    assert abs(result.test - 0.5) < 0.15


def test_result_follows_from_seed_and_model_dropout() -> None:
    task = handmade.task(handmade.grades)
    settings = FinetuneConfig(steps=6, batch_size=16, learning_rate=1e-3)
    params = init(handmade.MODEL, 0).params

    def correlation(seed: int, dropout: float = 0.0) -> float:
        config = dataclasses.replace(handmade.MODEL, dropout=dropout)
        return finetune(config, params, task, settings, seed=seed).test

    # The seed and the model's dropout each change the result, and nothing else does.
    plain = correlation(0)
    dropped = correlation(0, dropout=0.3)
    assert correlation(0) == plain
    assert correlation(0, dropout=0.3) == dropped
    assert len({plain, dropped, correlation(1)}) == 3


def test_params_stay_unchanged_and_mlm_head_is_ignored() -> None:
    model = init(handmade.MODEL, 0)
    task = handmade.task(handmade.grades)
    before = jax.tree.map(np.array, model.params)
    settings = dataclasses.replace(SETTINGS, steps=3)
    result = finetune(*model, task, settings, seed=0)
    # The caller's parameters are not the ones trained.
    jax.tree.map(np.testing.assert_array_equal, model.params, before)
    # A model that never had an MLM head gets the same result.
    headless = {name: part for name, part in model.params.items() if name != "mlm"}
    assert finetune(model.config, headless, task, settings, seed=0) == result


def test_default_optimizer_is_berts() -> None:
    assert optimizer_of(SETTINGS) == OptimizerConfig(
        learning_rate=3e-3, warmup=0.1, weight_decay=0.01, b1=0.9, b2=0.999, eps=1e-6, clip=0.0
    )


@pytest.mark.parametrize(
    ("warmup", "steps", "rising"),
    [
        (0.0, 40, 1),
        (0.25, 40, 10),
        (0.99, 40, 39.6),
        (1.0, 40, 1),
        (7.0, 40, 7),
        (39.0, 40, 39),
        (60.0, 1000, 60),
    ],
)
def test_warmup_is_fraction_below_one_and_steps_from_one(
    warmup: float, steps: int, rising: float
) -> None:
    settings = FinetuneConfig(steps=steps, learning_rate=2e-3, warmup=warmup)
    rates = [
        learning_rate(optimizer_of(settings), n / steps, (n + 1) / steps) for n in range(steps)
    ]
    # Without a warmup the rate falls from the first step.
    falling = steps - rising * (warmup > 0)
    expected = [2e-3 * min((n + 1) / rising, (steps - n) / falling, 1) for n in range(steps)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize("warmup", [40.0, 41.0, 1000.0])
def test_warmup_longer_than_run_rises_to_the_end(warmup: float) -> None:
    config = optimizer_of(dataclasses.replace(SETTINGS, warmup=warmup))
    rates = [learning_rate(config, n / 40, (n + 1) / 40) for n in range(40)]
    np.testing.assert_allclose(rates, [3e-3 * (n + 1) / 40 for n in range(40)], rtol=1e-5)


def first_change(**changes: float) -> tuple[Any, Any]:
    """Return the parameters before a first step, and how the step changes each of them.

    The learning rate is as large as Adam's epsilon and both are far above the gradients: a first
    step is then minus the gradient, plus weight decay.
    """
    settings = dataclasses.replace(
        SETTINGS, **{"learning_rate": 1e4, "eps": 1e4, "warmup": 0, **changes}
    )
    recipe = tuning.FinetuneRecipe(handmade.MODEL, settings, regression=False)
    train = handmade.task().train
    # The MLM head has no part in a sentence task.
    trained = {
        "model": {
            name: part for name, part in init(handmade.MODEL, 0).params.items() if name != "mlm"
        },
        "head": init_task_head(handmade.MODEL, 2, 0),
    }
    before = jax.tree.map(np.array, trained)
    state = trained, recipe.optimizer.init(trained)
    # One step from the start, at a rate as large as Adam's epsilon.
    stepped, _ = tuning.take_step(
        recipe,
        state,
        train.batch,
        train.labels,
        jax.random.key(0),
        np.float32(settings.learning_rate),
    )
    after, _ = stepped
    return before, jax.tree.map(lambda x, y: np.asarray(y) - x, before, after)


def norm(tree: Any) -> float:
    """Return the L2 norm of all leaves."""
    return np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(tree)))


def test_clip_scales_gradient_to_norm() -> None:
    _, free = first_change(weight_decay=0.0)
    # The gradient's norm, without clipping.
    size = norm(free)
    assert size > 0.05
    # Clipped to a quarter, it is a quarter; clipped to twice its norm, it is itself.
    _, clipped = first_change(weight_decay=0.0, clip=size / 4)
    assert norm(jax.tree.map(lambda x, y: x - y / 4, clipped, free)) < 1e-3 * norm(clipped)
    _, wide = first_change(weight_decay=0.0, clip=2 * size)
    assert norm(jax.tree.map(lambda x, y: x - y, wide, free)) < 1e-4 * size


def test_weight_decay_shrinks_parameters_without_gradient() -> None:
    def untouched(tree: Any) -> np.ndarray:
        return tree["model"]["embeddings"]["position"]["embedding"][8:]  # rows are 8 tokens long

    # Position rows behind a text's end have no gradient.
    before, change = first_change(weight_decay=0.0)
    assert norm(untouched(before)) > 0
    assert not untouched(change).any()
    # At a rate of 1e4, a decay of 1e-5 takes a tenth of a parameter.
    before, change = first_change(weight_decay=1e-5)
    np.testing.assert_allclose(untouched(change), -0.1 * untouched(before), rtol=1e-4)


def test_weight_decay_spares_biases_and_layer_norms() -> None:
    before, without = first_change(weight_decay=0.0)
    _, decayed = first_change(weight_decay=1e-5)
    spared = 0
    # What decay adds is the difference of two first steps.
    for (path, x), start, y in zip(
        jax.tree.leaves_with_path(without),
        jax.tree.leaves(before),
        jax.tree.leaves(decayed),
        strict=True,
    ):
        is_spared = path[-1].key in ("bias", "scale")
        decay = -0.1 * start * (not is_spared)
        np.testing.assert_allclose(y - x, decay, atol=1e-5, err_msg=str(path))
        spared += is_spared
    # The model has norms and biases at all.
    assert spared > 5


def test_row_order_follows_from_seed_and_epoch() -> None:
    def order(steps: int, seed: int = 3) -> np.ndarray:
        return np.concatenate(list(batch_rows(10, FinetuneConfig(steps=steps, batch_size=4), seed)))

    long = order(10)
    assert len(long) == 40
    # Every epoch has all rows, in an order of its own.
    for epoch in long.reshape(4, 10):
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in long.reshape(4, 10)}) == 4
    # A shorter run begins as the longer one does.
    np.testing.assert_array_equal(order(5), long[:20])
    assert (order(10, seed=4) != long).any()


def test_batch_larger_than_task_repeats_rows() -> None:
    (rows,) = batch_rows(3, FinetuneConfig(steps=1, batch_size=8), 0)
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [0, 1, 2]
    assert len(rows) == 8


def test_many_models_compile_once() -> None:
    task = handmade.task()
    settings = dataclasses.replace(SETTINGS, steps=3)
    finetune(*init(handmade.MODEL, 0), task, settings, seed=0)
    # The first model compiled both programs; others of its shape need no new one.
    with compilations() as later:
        for seed in range(1, 3):
            finetune(*init(handmade.MODEL, seed), task, settings, seed=seed)
    assert later == []


def test_loss_not_finite_is_refused_with_its_step() -> None:
    model = init(handmade.MODEL, 0)
    task = handmade.task()
    # One row alone holds a token whose embedding is NaN.
    task.train.batch["tokens"][7, 2] = 19
    task.train.batch["tokens"][[n for n in range(200) if n != 7]] %= 19
    word = np.array(model.params["embeddings"]["word"]["embedding"])
    word[19] = np.nan
    params = {
        **model.params,
        "embeddings": {**model.params["embeddings"], "word": {"embedding": word}},
    }
    # The refusal names the first step that reads the row.
    first = next(n for n, rows in enumerate(batch_rows(200, SETTINGS, 0), start=1) if 7 in rows)
    assert first > 1
    with pytest.raises(
        InputError, match=rf"handmade: the loss is nan at step {first}, expected finite numbers"
    ):
        finetune(model.config, params, task, SETTINGS, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", -1),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("warmup", -0.1),
        ("weight_decay", -1.0),
        ("clip", -1.0),
    ],
)
def test_invalid_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"finetune.{name} is {value}, expected"):
        dataclasses.replace(SETTINGS, **{name: value})


def test_zero_steps_are_refused() -> None:
    with pytest.raises(InputError, match=r"finetune.steps is 0, expected at least 1"):
        finetune(
            *init(handmade.MODEL, 0),
            handmade.task(),
            dataclasses.replace(SETTINGS, steps=0),
            seed=0,
        )
