"""Linear probes: what can be read off the frozen features of each layer."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from kdjax.config import ModelConfig, ProbeConfig
from kdjax.data.tasks import Task
from kdjax.errors import InputError
from kdjax.evaluate.metric import score
from kdjax.evaluate.rows import over_rows
from kdjax.models import forward
from kdjax.models.features import Request

ITERATIONS = 200
"""Most L-BFGS iterations of a logistic regression. A few dozen are usual; fits that stop here are counted and reported."""
TOLERANCE = 1e-3
"""The fit ends when no entry of the gradient of the mean loss is larger: ample for choosing between layers."""


@dataclass(frozen=True)
class LayerProbe:
    """The best probe of one layer.

    Attributes:
        layer: 0 is the embedding output.
        strength: inverse regularisation strength C, chosen on dev.
        dev: dev score.
        test: test score of the same probe.
    """

    layer: int
    strength: float
    dev: float
    test: float


@dataclass(frozen=True)
class ProbeResult:
    """Scores are accuracies; Pearson's r for a regression.

    Attributes:
        test: test score of the probe (layer and strength) that is best on dev.
        dev: its dev score; optimistic, as it was chosen by it.
        layer: its layer; 0 is the embedding output.
        strength: its inverse regularisation strength C.
        last_layer: test score of the last layer's best probe.
        baseline: test score of the most frequent class, or of a constant.
        layers: the best probe of every layer, from 0.
        examples: training rows used.
        unconverged: fits that stopped at `ITERATIONS`.
    """

    test: float
    dev: float
    layer: int
    strength: float
    last_layer: float
    baseline: float
    layers: tuple[LayerProbe, ...]
    examples: int
    unconverged: int


def probe(config: ModelConfig, params: Any, task: Task, settings: ProbeConfig) -> ProbeResult:
    """Fits linear probes on the frozen features of every layer.

    Features are hidden states averaged over a row's tokens, standardised by the training rows. Classes get a logistic
    regression with penalty |w|^2 / 2 + C * (sum of losses); numbers the same with half the squared error, a ridge
    regression. Layer and C are chosen on dev; of equals, the lower layer and the smaller C. The training rows are the
    first ones of the task, the same for every model, and nothing is random.

    Args:
        config: of the model.
        params: its parameters.
        task: the task.
        settings: how many rows, which C.

    Raises:
        InputError: the model's features are not finite, the training rows used have one class, or settings that allow
            no fit.
    """
    _check(task, settings)
    labels = task.train.labels[: settings.examples]
    inputs = {name: values[: settings.examples] for name, values in task.train.batch.items()}
    train, dev, test = (pooled(config, params, rows) for rows in (inputs, task.dev.batch, task.test.batch))
    if not all(np.isfinite(x).all() for x in (train, dev, test)):
        raise InputError(f"probe on {task.name}: features that are not finite; the model has diverged")
    layers, unconverged = [], 0
    for layer in range(config.layers + 1):
        scaler = StandardScaler().fit(train[:, layer].astype(np.float64))
        x, x_dev, x_test = (scaler.transform(s[:, layer].astype(np.float64)) for s in (train, dev, test))
        tried = []
        for strength in sorted(settings.strengths):
            model, converged = _fit(x, labels, strength, regression=task.regression)
            unconverged += not converged
            dev_score, test_score = (
                score(model.predict(inputs), split.labels, regression=task.regression)
                for inputs, split in ((x_dev, task.dev), (x_test, task.test))
            )
            tried.append(LayerProbe(layer, strength, dev_score, test_score))
        layers.append(_best(tried))
    best = _best(layers)
    return ProbeResult(
        test=best.test,
        dev=best.dev,
        layer=best.layer,
        strength=best.strength,
        last_layer=layers[-1].test,
        baseline=task.baseline,
        layers=tuple(layers),
        examples=len(labels),
        unconverged=unconverged,
    )


def pooled(config: ModelConfig, params: Any, batch: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Hidden states of every layer, averaged over each row's valid tokens.

    Args:
        config: of the model.
        params: its parameters.
        batch: `tokens`, `segments`, `positions`, `valid` `[N, L]`.

    Returns:
        `[N, layers + 1, D]`; layer 0 is the embedding output.
    """
    return over_rows(functools.partial(_pooled, config, params), batch)


@functools.partial(jax.jit, static_argnums=0)
def _pooled(config: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    hidden = forward(config, params, batch, Request(hidden=frozenset(range(config.layers + 1)))).hidden
    states = jnp.stack([hidden[layer] for layer in range(config.layers + 1)], axis=1).astype(jnp.float32)
    valid = batch["valid"][:, None, :, None]
    # A sum, not a matrix product: accelerators multiply float32 matrices in less than float32.
    return jnp.sum(states * valid, axis=2) / jnp.maximum(jnp.sum(valid, axis=2), 1)


def _fit(x: NDArray[Any], labels: NDArray[Any], strength: float, *, regression: bool) -> tuple[Any, bool]:
    """A fitted model, and whether it converged."""
    if regression:
        return Ridge(alpha=1 / strength).fit(x, labels), True
    model = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=ITERATIONS)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.fit(x, labels)
    for warning in seen:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model, not any(issubclass(warning.category, ConvergenceWarning) for warning in seen)


def _best(probes: list[LayerProbe]) -> LayerProbe:
    return max(probes, key=lambda p: p.dev)  # the first of equals


def _check(task: Task, settings: ProbeConfig) -> None:
    if settings.examples < 2:
        raise InputError(f"evaluation.probe.examples is {settings.examples}, expected at least 2")
    if not settings.strengths or min(settings.strengths) <= 0:
        raise InputError(f"evaluation.probe.strengths is {settings.strengths}, expected one or more numbers above 0")
    if not task.regression and len(np.unique(task.train.labels[: settings.examples])) < 2:
        raise InputError(f"probe on {task.name}: its first {settings.examples} training rows have one class, expected two")
