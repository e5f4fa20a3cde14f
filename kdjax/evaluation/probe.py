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
from kdjax.data.tasks.labelled import Task
from kdjax.errors import Diverged, InputError
from kdjax.evaluation.metric import score
from kdjax.evaluation.rows import over_rows
from kdjax.models import forward
from kdjax.models.features import FeatureRequest

ITERATIONS = 300
"""Most L-BFGS iterations of a logistic regression. Fewer than 100 are usual; fits that stop here
are counted."""


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

    Features are hidden states averaged over a row's tokens, standardised by the training rows.
    Classes get a logistic regression with penalty |w|^2 / 2 + C * (sum of losses); numbers the same
    with half the squared error, a ridge regression. Layer and C are chosen on dev; of equals, the
    lower layer and the smaller C. The training rows are the first ones of the task, the same for
    every model, and nothing is random.

    Args:
        config: of the model.
        params: its parameters.
        task: the task.
        settings: how many rows, which C.

    Raises:
        InputError: the model's features are not finite, the training rows used have one class, or
            settings that allow no fit.
    """
    _check(task, settings)
    labels = task.train.labels[: settings.examples]
    inputs = {name: values[: settings.examples] for name, values in task.train.batch.items()}
    train, dev, test = (
        pooled(config, params, rows) for rows in (inputs, task.dev.batch, task.test.batch)
    )
    if not all(np.isfinite(x).all() for x in (train, dev, test)):
        raise Diverged(
            f"probe on {task.name}: features that are not finite; the model has diverged"
        )
    fitted = []
    # Matrices this small gain nothing from threads, and lose much where cores are busy; one thread
    # also makes the sums the same on any number of cores.
    with threadpool_limits(limits=1):
        for layer in range(config.layers + 1):
            features = [split[:, layer].astype(np.float64) for split in (train, dev, test)]
            fitted.append(_probe_layer(layer, features, labels, task, sorted(settings.strengths)))
    layers = tuple(probes for probes, _ in fitted)
    best = _best(layers)
    return ProbeResult(
        test=best.test,
        dev=best.dev,
        layer=best.layer,
        strength=best.strength,
        last_layer=layers[-1].test,
        baseline=task.baseline,
        layers=layers,
        examples=len(labels),
        unconverged=sum(count for _, count in fitted),
    )


def pooled(
    config: ModelConfig, params: Any, batch: Mapping[str, NDArray[Any]]
) -> NDArray[np.float32]:
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
    hidden = forward(
        config, params, batch, FeatureRequest(hidden=frozenset(range(config.layers + 1)))
    ).hidden
    states = jnp.stack([hidden[layer] for layer in range(config.layers + 1)], axis=1).astype(
        jnp.float32
    )
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
    """The best probe on one layer's train, dev and test features, and how many fits did not
    converge."""
    scaler = StandardScaler().fit(features[0])
    x, x_dev, x_test = (scaler.transform(split) for split in features)
    tried = []
    unconverged = 0
    for strength in strengths:
        if task.regression:
            model = Ridge(alpha=1 / strength).fit(x, labels)
        else:
            model, converged = _logistic(x, labels, strength)
            unconverged += not converged
        dev = score(model.predict(x_dev), task.dev.labels, regression=task.regression)
        test = score(model.predict(x_test), task.test.labels, regression=task.regression)
        tried.append(LayerProbe(layer, strength, dev, test))
    return _best(tried), unconverged


def _logistic(
    x: NDArray[np.float64], labels: NDArray[Any], strength: float
) -> tuple[LogisticRegression, bool]:
    """A fitted logistic regression, and whether it converged."""
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        model.fit(x, labels)
    return model, bool(model.n_iter_.max() < ITERATIONS)


def _best(probes: Sequence[LayerProbe]) -> LayerProbe:
    return max(probes, key=lambda p: p.dev)  # the first of equals


def _check(task: Task, settings: ProbeConfig) -> None:
    if not task.regression and len(np.unique(task.train.labels[: settings.examples])) < 2:
        raise InputError(
            f"probe on {task.name}: its first {settings.examples} training rows have one class, "
            "expected two"
        )
