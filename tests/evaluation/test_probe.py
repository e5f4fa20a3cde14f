"""Probes find what is linear in a layer's features, and nothing where nothing is."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import ProbeConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.errors import InputError
from kdjax.evaluation import probe as probes
from kdjax.evaluation.probe import pooled_states, probe
from kdjax.models import forward, init
from kdjax.models.features import FeatureRequest
from tests.evaluation import handmade
from tests.support.compilations import compilations

THREE_LAYERS = dataclasses.replace(handmade.MODEL, layers=3)


def planted(
    monkeypatch: pytest.MonkeyPatch,
    signal: Sequence[float],
    labels_of: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray],
    *,
    rows: Sequence[int] = (400, 200, 400),
    classes: tuple[str, ...] = ("a", "b", "c"),
) -> tuple[Task, list[np.ndarray]]:
    """Make a task of noise, plus at each layer `signal[layer]` times the label in some direction.

    The first feature of a row's tokens says which row it is, so that `pooled` can be replaced.
    """
    rng = np.random.default_rng(0)
    splits = []
    stored: list[np.ndarray] = []
    for n in rows:
        truth = rng.integers(0, 3, n)
        x = rng.normal(size=(n, len(signal), 12)).astype(np.float32)
        # The label's direction is added layer by layer, as strongly as the signal says.
        x[:, :, :3] += np.asarray(signal)[:, None] * np.eye(3)[truth][:, None, :]
        first = sum(len(s) for s in stored)
        # A row is known by its number, which stands for its tokens.
        tokens = np.arange(first, first + n, dtype=np.int32)
        splits.append(Split(tokens, np.arange(n + 1), None, labels_of(truth, x, rng)))
        stored.append(x)
    give(monkeypatch, np.concatenate(stored))
    train, selection, reported = splits
    metrics = ("accuracy",) if classes else ("pearson",)
    return Task("planted", classes, metrics, train, selection, {"planted": reported}), stored


def give(monkeypatch: pytest.MonkeyPatch, features: np.ndarray) -> None:
    """Give rows the features of their one token."""

    def pooled(config: Any, params: Any, split: Split, rows: Any = slice(None)) -> np.ndarray:
        return features[split.tokens[rows]]

    monkeypatch.setattr(probes, "pooled_states", pooled)


def classes_of(truth: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return truth.astype(np.int32)


def test_probe_finds_the_layer_with_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = planted(monkeypatch, [0.0, 1.0, 8.0, 2.0], classes_of)
    result = probe(THREE_LAYERS, {}, task, ProbeConfig())
    assert result.layer == 2
    assert result.scores["planted"] > 0.98
    scores = [layer.scores["planted"] for layer in result.layers]
    assert [layer.layer for layer in result.layers] == [0, 1, 2, 3]
    # The layer of noise scores at chance, and the others in the order of their signal.
    assert abs(scores[0] - 1 / 3) < 0.1
    assert scores[0] < scores[1] < scores[3] < scores[2] == result.scores["planted"]
    assert result.last_layer == {"planted": scores[3]}
    assert result.selection == max(layer.selection for layer in result.layers)
    # The best constant answer on the rows that are scored
    shares = np.bincount(task.reported["planted"].labels) / 400
    assert result.baseline == {"planted": pytest.approx(shares.max())}
    # All fits converged.
    assert (result.examples, result.unconverged) == (400, 0)


def test_shuffled_labels_score_at_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = planted(
        monkeypatch, [8.0] * 4, lambda truth, x, rng: rng.permutation(truth).astype(np.int32)
    )
    result = probe(THREE_LAYERS, {}, task, ProbeConfig())
    # Four standard deviations of a guess among three classes.
    assert abs(result.scores["planted"] - 1 / 3) < 4 * np.sqrt(2 / 9 / 400)


def test_layer_and_strength_are_chosen_on_selection_rows_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, _ = planted(monkeypatch, [1.0, 1.0, 1.0, 1.0], classes_of)
    settings = ProbeConfig(strengths=(0.001, 0.1, 10.0))
    before = probe(THREE_LAYERS, {}, task, settings)
    # Reported labels are turned: their score falls, and the choice stays.
    reported = task.reported["planted"]
    turned = dataclasses.replace(reported, labels=(reported.labels + 1) % 3)
    flipped = dataclasses.replace(task, reported={"planted": turned})
    after = probe(THREE_LAYERS, {}, flipped, settings)
    assert after.scores["planted"] < before.scores["planted"]
    assert (after.layer, after.strength) == (before.layer, before.strength)
    assert after.selection == before.selection


def test_equal_scores_choose_lower_layer_and_smaller_strength(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, _ = planted(monkeypatch, [60.0] * 4, classes_of)
    result = probe(THREE_LAYERS, {}, task, ProbeConfig(strengths=(1.0, 0.1)))
    # Everything scores 1, so that the rule for ties decides.
    assert (result.selection, result.layer, result.strength) == (1.0, 0, 0.1)


def test_rows_beyond_examples_are_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = planted(monkeypatch, [2.0] * 4, classes_of)
    labels = task.train.labels.copy()
    # Labels from the 51st row on are wrong.
    labels[50:] = (labels[50:] + 1) % 3
    spoilt = dataclasses.replace(task, train=dataclasses.replace(task.train, labels=labels))
    settings = ProbeConfig(examples=50)
    result = probe(THREE_LAYERS, {}, spoilt, settings)
    assert result.examples == 50
    assert result.scores == probe(THREE_LAYERS, {}, task, settings).scores


def test_regression_equals_closed_form_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    # Numbers are linear in the features but for noise.
    def numbers(truth: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (5 + x[:, 0] @ np.linspace(-1, 1, 12) + rng.normal(size=len(x))).astype(np.float32)

    task, stored = planted(monkeypatch, [0.0], numbers, classes=())
    # The probe has at least two layers to choose from, here equal ones.
    result = probe(
        dataclasses.replace(handmade.MODEL, layers=1),
        {},
        doubled(monkeypatch, task, stored),
        ProbeConfig(),
    )
    # The closed form of ridge regression, on standardised features.
    train = stored[0][:, 0].astype(np.float64)
    test = stored[2][:, 0].astype(np.float64)
    mean = train.mean(0)
    scale = train.std(0)
    x = (train - mean) / scale
    y = task.train.labels.astype(np.float64)
    # |w|^2 / 2 + C / 2 |y - x w|^2 is least where (x'x + 1/C) w = x'y.
    w = np.linalg.solve(x.T @ x + np.eye(12) / result.strength, x.T @ (y - y.mean()))
    assert result.layer == 0
    truth = task.reported["planted"].labels
    expected = np.corrcoef((test - mean) / scale @ w, truth)[0, 1]
    assert result.scores["planted"] == pytest.approx(expected, rel=1e-6)
    # And it is a fit worth the name.
    assert expected > 0.8
    assert result.baseline == {"planted": 0}


def doubled(monkeypatch: pytest.MonkeyPatch, task: Task, stored: list[np.ndarray]) -> Task:
    """Give the task the features of layer 0 at layer 1 too."""
    give(monkeypatch, np.repeat(np.concatenate(stored), 2, axis=1))
    return task


def test_unconverged_fits_are_counted_without_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    task, _ = planted(monkeypatch, [1.0] * 4, classes_of)
    monkeypatch.setattr(probes, "ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Four layers at three strengths, none of which can converge.
        assert probe(THREE_LAYERS, {}, task, ProbeConfig()).unconverged == 4 * 3


def test_pooled_averages_valid_tokens_of_each_layer() -> None:
    model = init(dataclasses.replace(handmade.MODEL, layers=2), 0)
    split = handmade.ragged(handmade.inputs(90, np.random.default_rng(0), length=40))
    # The means over valid tokens, of all rows padded to one length.
    batch = split.batch(np.arange(90), 40)
    hidden = forward(*model, batch, FeatureRequest(hidden=frozenset(range(3)))).hidden
    actual = pooled_states(*model, split)
    assert actual.shape == (90, 3, 32)
    assert actual.dtype == np.float32
    for row in (0, 17, 89):
        end = split.lengths[row]
        for layer in range(3):
            expected = np.mean(hidden[layer][row, :end], 0)
            np.testing.assert_allclose(actual[row, layer], expected, atol=1e-5)


def test_pooled_features_of_chosen_rows_equal_those_rows_of_all() -> None:
    model = init(handmade.MODEL, 0)
    split = handmade.ragged(handmade.inputs(20, np.random.default_rng(0)))
    chosen = np.array([7, 2])
    np.testing.assert_allclose(
        pooled_states(*model, split, chosen), pooled_states(*model, split)[chosen], atol=1e-6
    )


def test_untrained_model_solves_task_of_its_embeddings() -> None:
    model = init(handmade.MODEL, 0)
    task = handmade.task(train=400)
    result = probe(*model, task, ProbeConfig())
    assert result.scores["handmade"] > 0.95
    # Twice the same, to the bit.
    assert result == probe(*model, task, ProbeConfig())


def test_many_models_compile_once() -> None:
    task = handmade.task()
    # The first model compiles; those after it use the program.
    probe(*init(handmade.MODEL, 0), task, ProbeConfig())
    with compilations() as later:
        for seed in range(1, 3):
            probe(*init(handmade.MODEL, seed), task, ProbeConfig())
    assert later == []


def test_diverged_model_is_refused() -> None:
    model = init(handmade.MODEL, 0)
    with pytest.raises(InputError, match="probe on handmade: features that are not finite"):
        probe(
            model.config,
            jax.tree.map(lambda x: x * np.nan, model.params),
            handmade.task(),
            ProbeConfig(),
        )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strengths": ()}, "strengths is ()"),
        ({"strengths": (0.1, 0.0)}, "strengths is 0.0"),
        ({"examples": 1}, "examples is 1"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as error:
        ProbeConfig(**settings)
    assert named in str(error.value)


def test_training_rows_of_one_class_are_refused() -> None:
    task = handmade.task()
    train = dataclasses.replace(task.train, labels=np.zeros_like(task.train.labels))
    alike = dataclasses.replace(task, train=train)
    with pytest.raises(InputError, match="handmade: its first 3000 training rows have one class"):
        probe(*init(handmade.MODEL, 0), alike, ProbeConfig())
