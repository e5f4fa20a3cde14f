"""The step does what its equations say."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import FinetuneConfig
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning.results import Setting
from kdjax.evaluation.finetuning.step import compiled_step, init_state
from kdjax.evaluation.finetuning.trial import EncoderSetup, schedule_of, step_key_of
from kdjax.models import classify, init
from kdjax.training.learning_rate import learning_rate
from tests.evaluation import handmade

SETTINGS = FinetuneConfig(steps=40, batch_size=16, learning_rate=3e-3)


def rates(warmup: float, steps: int) -> list[float]:
    """Return each step's learning rate, of a peak of 2e-3."""
    config = schedule_of(Setting(2e-3, 8, None, steps), warmup)
    return [learning_rate(config, n / steps, (n + 1) / steps) for n in range(steps)]


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
    # Without a warmup the rate falls from the first step.
    falling = steps - rising * (warmup > 0)
    expected = [2e-3 * min((n + 1) / rising, (steps - n) / falling, 1) for n in range(steps)]
    np.testing.assert_allclose(rates(warmup, steps), expected, rtol=1e-5)


@pytest.mark.parametrize("warmup", [40.0, 41.0, 1000.0])
def test_warmup_longer_than_run_rises_to_the_end(warmup: float) -> None:
    expected = [2e-3 * (n + 1) / 40 for n in range(40)]
    np.testing.assert_allclose(rates(warmup, 40), expected, rtol=1e-5)


def first_step(
    rate: float = 1e4, fill: int = 0, task: Task | None = None, **changes: float
) -> tuple[Any, Any, float]:
    """Return parameters before a first step, how it changes each of them, and its loss.

    The learning rate is as large as Adam's epsilon and both are far above the gradients: a first
    step is then minus the gradient, plus weight decay.
    """
    task = task or handmade.task()
    settings = dataclasses.replace(SETTINGS, **{"eps": 1e4, **changes})
    step_key = step_key_of(EncoderSetup(handmade.MODEL, handmade.alone()), task, settings)
    state = init_state(step_key, init(handmade.MODEL, 0).params, 0)
    before = jax.tree.map(np.array, state.params)

    # The batch is 16 rows, and as many more as fill it up.
    rows = np.concatenate([np.arange(16), np.full(fill, -1)])
    batch = dict(task.train.batch(rows, 8))
    batch["targets"] = task.train.labels[rows]
    batch["weights"] = (rows >= 0).astype(np.float32)
    after, loss = compiled_step(step_key, 1)(state, batch, np.float32(rate))
    change = jax.tree.map(lambda x, y: np.asarray(y) - x, before, after.params)
    return before, change, float(loss)


def norm(tree: Any) -> float:
    """Return the L2 norm of all leaves."""
    return np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(tree)))


def scores() -> np.ndarray:
    """Return the model's class scores of the first 16 rows before any step, float64."""
    task = handmade.task()
    step_key = step_key_of(EncoderSetup(handmade.MODEL, handmade.alone()), task, SETTINGS)
    model = init_state(step_key, init(handmade.MODEL, 0).params, 0).params["model"]
    batch = task.train.batch(np.arange(16), 8)
    head = model.pop("task_head")
    return np.asarray(classify(handmade.MODEL, model, head, batch), np.float64)


def test_loss_is_the_mean_cross_entropy_of_the_rows() -> None:
    outputs = scores()
    labels = handmade.task().train.labels[:16]
    # -log softmax, written out.
    expected = np.log(np.exp(outputs).sum(1)) - outputs[np.arange(16), labels]
    _, _, loss = first_step()
    assert loss == pytest.approx(expected.mean(), rel=1e-5)


def test_rows_that_fill_a_batch_up_change_nothing() -> None:
    _, plain, loss = first_step(weight_decay=0.0)
    _, filled, filled_loss = first_step(weight_decay=0.0, fill=16)
    assert filled_loss == pytest.approx(loss, rel=1e-6)
    assert norm(jax.tree.map(np.subtract, filled, plain)) < 1e-3 * norm(plain)


def test_clip_scales_gradient_to_norm() -> None:
    _, free, _ = first_step(weight_decay=0.0)
    # The gradient's norm, without clipping.
    size = norm(free)
    assert size > 0.05
    # Clipped to a quarter, it is a quarter; clipped to twice its norm, it is itself.
    _, clipped, _ = first_step(weight_decay=0.0, clip=size / 4)
    assert norm(jax.tree.map(lambda x, y: x - y / 4, clipped, free)) < 1e-3 * norm(clipped)
    _, wide, _ = first_step(weight_decay=0.0, clip=2 * size)
    assert norm(jax.tree.map(np.subtract, wide, free)) < 1e-4 * size


def test_weight_decay_shrinks_parameters_without_gradient() -> None:
    def untouched(tree: Any) -> np.ndarray:
        return tree["model"]["embeddings"]["position"]["embedding"][8:]  # rows are 8 tokens long

    # Position rows behind a text's end have no gradient.
    before, change, _ = first_step(weight_decay=0.0)
    assert norm(untouched(before)) > 0
    assert not untouched(change).any()
    # At a rate of 1e4, a decay of 1e-5 takes a tenth of a parameter.
    before, change, _ = first_step(weight_decay=1e-5)
    np.testing.assert_allclose(untouched(change), -0.1 * untouched(before), rtol=1e-4)


def test_weight_decay_spares_biases_and_layer_norms() -> None:
    before, without, _ = first_step(weight_decay=0.0)
    _, decayed, _ = first_step(weight_decay=1e-5)
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


def test_first_step_that_is_not_finite_is_kept() -> None:
    task = handmade.task()
    step_key = step_key_of(EncoderSetup(handmade.MODEL, handmade.alone()), task, SETTINGS)
    state = init_state(step_key, init(handmade.MODEL, 0).params, 0)
    batch = dict(task.train.batch(np.arange(16), 8))
    batch |= {"targets": task.train.labels[:16], "weights": np.ones(16, np.float32)}
    step = compiled_step(step_key, 1)
    # The second step's rate is not finite, so that the third step's loss is the first that is not.
    seen = []
    for rate in (1e-3, np.inf, 1e-3, 1e-3):
        state, _ = step(state, batch, np.float32(rate))
        seen.append(int(state.diverged_step))
    assert seen == [0, 0, 3, 3]
