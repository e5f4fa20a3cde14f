"""Linear probes: what can be read off the frozen features of each layer."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from kdjax.data.tasks.task import Split, Task
from kdjax.errors import Diverged, InputError
from kdjax.evaluation.finetuning.results import encode_right
from kdjax.evaluation.length_buckets import compute_over_rows
from kdjax.evaluation.metric import baseline, task_score
from kdjax.models import forward
from kdjax.models.features import FeatureRequest

ITERATIONS = 300
"""Most L-BFGS iterations of a logistic regression (fewer than 100 are usual)."""
TRAIN = "(train)"
SELECTION = "(selection)"
"""Names of the rows that are no result; no result can have them."""


@dataclass(frozen=True)
class LayerProbe:
    """The best probe of one layer.

    Attributes:
        layer: number of the layer; 0 is the embedding output.
        strength: inverse regularisation strength C, chosen on the selection rows.
        selection: score on the selection rows.
        scores: result -> score on its rows.
        rows: result -> which of its rows are right (`right_rows`); empty for a regression.
    """

    layer: int
    strength: float
    selection: float
    scores: dict[str, float]
    rows: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a model's linear probes: the means of the task's metrics.

    The best probe is the one (layer and strength) with the best selection score.

    Attributes:
        scores: result -> score of the best probe.
        selection: selection score of the best probe; optimistic, since it was chosen by it.
        layer: layer of the best probe; 0 is the embedding output.
        strength: inverse regularisation strength C of the best probe.
        last_layer: result -> score of the last layer's best probe.
        baseline: result -> the most that one answer for all rows scores.
        layers: the best probe of every layer, from 0.
        examples: training rows used.
        unconverged: fits that stopped at `ITERATIONS`.
        rows: result -> which of its rows the best probe has right; empty for a regression.
    """

    scores: dict[str, float]
    selection: float
    layer: int
    strength: float
    last_layer: dict[str, float]
    baseline: dict[str, float]
    layers: tuple[LayerProbe, ...]
    examples: int
    unconverged: int
    rows: dict[str, str] = field(default_factory=dict)


def probe(config: ModelConfig, params: Any, task: Task, settings: ProbeConfig) -> ProbeResult:
    """Fit linear probes on the frozen features of every layer.

    Features are hidden states averaged over a row's tokens, standardised by the training rows.
    Classes get a logistic regression with penalty |w|^2 / 2 + C * (sum of losses); numbers the same
    with half the squared error, a ridge regression. Layer and C are chosen on the selection rows;
    of equals, the lower layer and the smaller C. The training rows are the first ones of the task,
    the same for every model, and nothing is random.

    Args:
        config: configuration of the model.
        params: parameters of the model.
        task: labelled rows to fit and to score.
        settings: number of training rows, and values of C.

    Raises:
        InputError: the model's features are not finite, or the training rows used have one class.
    """
    labels = _training_labels(task, settings)
    rows = np.arange(len(labels))

    # `[N, layers + 1, D]` of training, selection and reported rows.
    features = {
        TRAIN: pooled_states(config, params, task.train, rows),
        SELECTION: pooled_states(config, params, task.selection),
    }
    for name, split in task.reported.items():
        features[name] = pooled_states(config, params, split)
    if not all(np.isfinite(states).all() for states in features.values()):
        raise Diverged(
            f"probe on {task.name}: features that are not finite; the model has diverged"
        )

    layers = []
    unconverged = 0
    # Matrices this small gain nothing from threads, and lose much where cores are busy; one thread
    # also makes the sums the same on any number of cores.
    with threadpool_limits(limits=1):
        for layer in range(config.layers + 1):
            of_layer = {}
            for name, states in features.items():
                of_layer[name] = states[:, layer].astype(np.float64)
            strengths = sorted(settings.strengths)
            layer_probe, count = _probe_layer(layer, of_layer, labels, task, strengths)
            layers.append(layer_probe)
            unconverged += count
    best = _best(layers)
    return ProbeResult(
        scores=best.scores,
        selection=best.selection,
        layer=best.layer,
        strength=best.strength,
        last_layer=layers[-1].scores,
        baseline=baseline(task),
        layers=tuple(layers),
        examples=len(labels),
        unconverged=unconverged,
        rows=best.rows,
    )


def pooled_states(
    config: ModelConfig, params: Any, split: Split, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float32]:
    """Average the hidden states of every layer over each row's valid tokens.

    Args:
        config: configuration of the model.
        params: parameters of the model.
        split: rows as token ids.
        rows: numbers of N rows; None: all of them.

    Returns:
        `[N, layers + 1, D]`; layer 0 is the embedding output.
    """
    compute = functools.partial(_pooled, config, params)
    states: NDArray[np.float32] = compute_over_rows(compute, split, config.max_positions, rows=rows)
    return states


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
    features: Mapping[str, NDArray[np.float64]],
    labels: NDArray[Any],
    task: Task,
    strengths: Sequence[float],
) -> tuple[LayerProbe, int]:
    """Fit a layer's probes; return the best, and how many fits did not converge.

    Args:
        layer: number of the layer.
        features: `[N, D]` of training and selection rows, and of each result's.
        labels: labels of the training rows.
        task: task with the labels of the others.
        strengths: values of C, ascending.
    """
    # Standardised by the training rows alone.
    scaler = StandardScaler().fit(features[TRAIN])
    x = {name: scaler.transform(states) for name, states in features.items()}
    probes = []
    unconverged = 0
    for strength in strengths:
        if task.regression:
            model = Ridge(alpha=1 / strength).fit(x[TRAIN], labels)
        else:
            model, converged = _logistic(x[TRAIN], labels, strength)
            unconverged += not converged
        scores = {}
        right = {}
        for name, split in {SELECTION: task.selection, **task.reported}.items():
            truth = np.asarray(split.labels)
            predicted = model.predict(x[name])
            scores[name] = task_score(task.metrics, predicted, truth)
            if not task.regression and name != SELECTION:
                right[name] = encode_right(predicted, truth)
        selection = scores.pop(SELECTION)
        probes.append(LayerProbe(layer, strength, selection, scores, right))
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
    """Choose the probe with the best selection score, the first of equals."""
    return max(probes, key=lambda probe: probe.selection)


def _training_labels(task: Task, settings: ProbeConfig) -> NDArray[Any]:
    """Return the labels of the training rows that are used.

    Raises:
        InputError: they have one class.
    """
    labels = np.asarray(task.train.labels)[: settings.examples]
    if not task.regression and len(np.unique(labels)) < 2:
        raise InputError(
            f"probe on {task.name}: its first {settings.examples} training rows have one class, "
            "expected two"
        )
    return labels
