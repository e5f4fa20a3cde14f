"""Linear probes: what can be read off the frozen features of each layer."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from kdjax.config import ModelConfig, ProbeConfig
from kdjax.data.tasks.task import Task
from kdjax.errors import Diverged, InputError
from kdjax.evaluation.metric import score
from kdjax.evaluation.rows import over_rows
from kdjax.models import forward
from kdjax.models.features import FeatureRequest

ITERATIONS = 300
"""Most L-BFGS iterations of a logistic regression (fewer than 100 are usual)."""


@dataclass(frozen=True)
class LayerProbe:
    """The best probe of one layer.

    Attributes:
        layer: number of the layer; 0 is the embedding output.
        strength: inverse regularisation strength C, chosen on dev.
        dev: score on the dev rows.
        test: score on the test rows.
    """

    layer: int
    strength: float
    dev: float
    test: float


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a model's linear probes: accuracies, or Pearson's r for a regression.

    The best probe is the one (layer and strength) with the best dev score.

    Attributes:
        test: test score of the best probe.
        dev: dev score of the best probe; optimistic, since the probe was chosen by it.
        layer: layer of the best probe; 0 is the embedding output.
        strength: inverse regularisation strength C of the best probe.
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
    """Fit linear probes on the frozen features of every layer.

    Features are hidden states averaged over a row's tokens, standardised by the training rows.
    Classes get a logistic regression with penalty |w|^2 / 2 + C * (sum of losses); numbers the same
    with half the squared error, a ridge regression. Layer and C are chosen on dev; of equals, the
    lower layer and the smaller C. The training rows are the first ones of the task, the same for
    every model, and nothing is random.

    Args:
        config: configuration of the model.
        params: parameters of the model.
        task: labelled rows to fit and to score.
        settings: number of training rows, and values of C.

    Raises:
        InputError: the model's features are not finite, or the training rows used have one class.
    """
    _check(task, settings)
    labels = task.train.labels[: settings.examples]
    inputs = {name: values[: settings.examples] for name, values in task.train.batch.items()}

    # `[N, layers + 1, D]` of train, dev and test rows.
    batches = (inputs, task.dev.batch, task.test.batch)
    splits = [pooled(config, params, batch) for batch in batches]
    if not all(np.isfinite(split).all() for split in splits):
        raise Diverged(
            f"probe on {task.name}: features that are not finite; the model has diverged"
        )
    layers = []
    unconverged = 0
    # Matrices this small gain nothing from threads, and lose much where cores are busy; one thread
    # also makes the sums the same on any number of cores.
    with threadpool_limits(limits=1):
        for layer in range(config.layers + 1):
            features = [split[:, layer].astype(np.float64) for split in splits]
            strengths = sorted(settings.strengths)
            layer_probe, count = _probe_layer(layer, features, labels, task, strengths)
            layers.append(layer_probe)
            unconverged += count
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


def pooled(
    config: ModelConfig, params: Any, batch: Mapping[str, NDArray[Any]]
) -> NDArray[np.float32]:
    """Average the hidden states of every layer over each row's valid tokens.

    Args:
        config: configuration of the model.
        params: parameters of the model.
        batch: `tokens`, `segments`, `positions`, `valid` `[N, L]`.

    Returns:
        `[N, layers + 1, D]`; layer 0 is the embedding output.
    """
    return over_rows(functools.partial(_pooled, config, params), batch)


@functools.partial(jax.jit, static_argnums=0)
def _pooled(config: ModelConfig, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    layers = range(config.layers + 1)
    request = FeatureRequest(hidden=frozenset(layers))
    hidden = forward(config, params, batch, request).hidden
    states = jnp.stack([hidden[layer] for layer in layers], axis=1).astype(jnp.float32)
    valid = batch["valid"][:, None, :, None]
    # A sum, not a matrix product: accelerators multiply float32 matrices in less than float32.
    return jnp.sum(states * valid, axis=2) / jnp.maximum(jnp.sum(valid, axis=2), 1)


def _probe_layer(
    layer: int,
    features: Sequence[NDArray[np.float64]],
    labels: NDArray[Any],
    task: Task,
    strengths: Sequence[float],
) -> tuple[LayerProbe, int]:
    """Fit a layer's probes; return the best, and how many fits did not converge.

    Args:
        layer: number of the layer.
        features: `[N, D]` of train, dev and test rows.
        labels: labels of the train rows.
        task: task with the labels of dev and test rows.
        strengths: values of C, ascending.
    """
    # Standardised by the training rows alone.
    scaler = StandardScaler().fit(features[0])
    x, x_dev, x_test = map(scaler.transform, features)
    probes = []
    unconverged = 0
    for strength in strengths:
        if task.regression:
            model = Ridge(alpha=1 / strength).fit(x, labels)
        else:
            model, converged = _logistic(x, labels, strength)
            unconverged += not converged
        dev = score(model.predict(x_dev), task.dev.labels, regression=task.regression)
        test = score(model.predict(x_test), task.test.labels, regression=task.regression)
        probes.append(LayerProbe(layer, strength, dev, test))
    return _best(probes), unconverged


def _logistic(
    x: NDArray[np.float64], labels: NDArray[Any], strength: float
) -> tuple[LogisticRegression, bool]:
    """Fit a logistic regression; return it, and whether it converged."""
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    # Fits that stop early are counted and shown, so that a warning would say it twice.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, labels)
    return model, bool(model.n_iter_.max() < ITERATIONS)


def _best(probes: Sequence[LayerProbe]) -> LayerProbe:
    """Choose the probe with the best dev score, the first of equals."""
    return max(probes, key=lambda probe: probe.dev)


def _check(task: Task, settings: ProbeConfig) -> None:
    if not task.regression and len(np.unique(task.train.labels[: settings.examples])) < 2:
        raise InputError(
            f"probe on {task.name}: its first {settings.examples} training rows have one class, "
            "expected two"
        )
