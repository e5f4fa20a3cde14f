"""Fine-tuning: the whole encoder with a fresh head, trained on a labelled task."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from kdjax.config import FinetuneConfig, ModelConfig, OptimizerConfig
from kdjax.data.tasks.labelled import Split, Task
from kdjax.errors import Diverged, InputError
from kdjax.evaluation.metric import score
from kdjax.evaluation.rows import over_rows
from kdjax.models import classify, init_task_head
from kdjax.training.optimizer import adamw, apply, learning_rate


@dataclass(frozen=True)
class FinetuneResult:
    """Scores of a fine-tuned model: accuracies, or Pearson's r for a regression.

    Attributes:
        test: test score after the last step.
        dev: dev score after the last step; nothing is chosen by it.
        steps: optimiser steps.
        learning_rate: peak learning rate.
    """

    test: float
    dev: float
    steps: int
    learning_rate: float


def finetune(
    config: ModelConfig, params: Any, task: Task, settings: FinetuneConfig, *, seed: int
) -> FinetuneResult:
    """Train encoder and head on a task, and score the result once, after the last step.

    AdamW (`optimizer_of`) on cross-entropy; for a regression on the mean squared error of labels
    standardised by the training rows. Dropout has the rates of the model. Nothing here is charged
    to a budget. The step is compiled once per model, settings and shape of the task, for all runs
    of a process.

    Args:
        config: configuration of the model.
        params: parameters of the model; copied, without its MLM head.
        task: labelled rows to train on and to score.
        settings: steps, batch, optimiser, and what the head reads.
        seed: decides the head's start, the order of rows, and dropout.

    Raises:
        InputError: no step, or a loss that is not finite.
    """
    if settings.steps < 1:
        raise InputError(f"evaluation.finetune.steps is {settings.steps}, expected at least 1")
    # A copy, since the step donates its state.
    encoder = {name: part for name, part in params.items() if name != "mlm"}
    trained = {
        "model": jax.tree.map(jnp.array, encoder),
        "head": init_task_head(config, task.outputs, seed),
    }
    recipe = FinetuneRecipe(config, settings, task.regression)
    state = (trained, recipe.optimizer.init(trained))
    targets = _targets(task)
    key = jax.random.key(seed)
    schedule = optimizer_of(settings)
    losses = []
    for step, rows in enumerate(batch_rows(len(task.train), settings, seed)):
        batch = {name: values[rows] for name, values in task.train.batch.items()}
        step_key = jax.random.fold_in(key, step)
        rate = learning_rate(schedule, step / settings.steps, (step + 1) / settings.steps)
        state, loss = take_step(recipe, state, batch, targets[rows], step_key, np.float32(rate))
        losses.append(loss)

    # Losses are fetched after the last step, so that the device never waits for the host.
    for step, value in enumerate(np.asarray(jnp.stack(losses)), start=1):
        if not np.isfinite(value):
            raise _diverged(task, f"the loss is {value} at step {step}")
    return FinetuneResult(
        test=_score(recipe, state[0], task.test, task),
        dev=_score(recipe, state[0], task.dev, task),
        steps=settings.steps,
        learning_rate=settings.learning_rate,
    )


def batch_rows(count: int, settings: FinetuneConfig, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield the training rows of each step, `[batch]`: epoch after epoch, with no row left out.

    The order within an epoch is a pure function of (seed, epoch). A batch may cross from one epoch
    into the next.

    Args:
        count: number of training rows.
        settings: steps and batch size.
        seed: a number that is not negative.
    """
    rows = np.empty(0, np.intp)
    epoch = 0
    for _ in range(settings.steps):
        while len(rows) < settings.batch_size:
            rows = np.concatenate([rows, np.random.default_rng([seed, epoch]).permutation(count)])
            epoch += 1
        yield rows[: settings.batch_size]
        rows = rows[settings.batch_size :]


def optimizer_of(settings: FinetuneConfig) -> OptimizerConfig:
    """Build the optimiser of a fine-tuning.

    Adam's betas are 0.9 and 0.999, as BERT's (Devlin et al. 2019, arXiv 1810.04805). A warm-up
    given as a number of steps becomes a fraction of them; one as long as the run, or longer, lasts
    the run.

    Args:
        settings: settings with at least 1 step.
    """
    warmup = settings.warmup
    if warmup >= 1:
        warmup /= settings.steps
    return OptimizerConfig(
        learning_rate=settings.learning_rate,
        warmup=min(warmup, math.nextafter(1.0, 0.0)),
        weight_decay=settings.weight_decay,
        b1=0.9,
        b2=0.999,
        eps=settings.eps,
        clip=settings.clip,
    )


@dataclass(frozen=True)
class FinetuneRecipe:
    """What a compiled step depends on besides shapes; hashable, so that it can be static."""

    model: ModelConfig
    settings: FinetuneConfig
    regression: bool

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Return AdamW over all parameters."""
        return adamw(optimizer_of(self.settings))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def take_step(
    recipe: FinetuneRecipe,
    state: tuple[Any, Any],
    batch: dict[str, jax.Array],
    targets: jax.Array,
    key: jax.Array,
    rate: jax.Array,
) -> tuple[tuple[Any, Any], jax.Array]:
    """Take one step; return the new state and the loss before it."""

    def loss_of(trained: Any) -> jax.Array:
        outputs = classify(
            recipe.model,
            trained["model"],
            trained["head"],
            batch,
            pool=recipe.settings.pool,
            dropout_key=key,
        )
        if recipe.regression:
            return jnp.mean((outputs[:, 0] - targets) ** 2)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, targets))

    trained, moments = state
    loss, grads = jax.value_and_grad(loss_of)(trained)
    return apply(recipe.optimizer, grads, moments, trained, rate), loss


def _targets(task: Task) -> NDArray[Any]:
    """Return class indices, or numbers standardised by the training rows."""
    labels = task.train.labels
    if not task.regression:
        return labels
    # Labels that are all alike have no spread to divide by.
    spread = labels.std() or 1
    standardised: NDArray[Any] = ((labels - labels.mean()) / spread).astype(np.float32)
    return standardised


def _score(recipe: FinetuneRecipe, trained: Any, split: Split, task: Task) -> float:
    """Score the model's predictions on one split."""
    outputs = over_rows(functools.partial(_classify, recipe, trained), split.batch)
    if not np.isfinite(outputs).all():
        raise _diverged(task, "the outputs are not finite after the last step")
    if task.regression:
        return score(outputs[:, 0], split.labels, regression=True)
    return score(outputs.argmax(axis=1), split.labels, regression=False)


@functools.partial(jax.jit, static_argnums=0)
def _classify(recipe: FinetuneRecipe, trained: Any, batch: dict[str, jax.Array]) -> jax.Array:
    return classify(
        recipe.model, trained["model"], trained["head"], batch, pool=recipe.settings.pool
    )


def _diverged(task: Task, problem: str) -> Diverged:
    return Diverged(
        f"fine-tuning on {task.name}: {problem}, expected finite numbers; lower "
        "evaluation.finetune.learning_rate"
    )
