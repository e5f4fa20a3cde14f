"""A probe reads what a frozen model's states say of masked tokens, at a price counted by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import MlmProbeConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.evaluation.mlm import HeldOut
from kdjax.evaluation.mlm_probe import FittedProbe, MlmProbe, cost_of, steps_of
from kdjax.evaluation.mlm_probe_head import ProbeHead, standardized
from kdjax.models import Model, forward, init
from kdjax.models.features import FeatureRequest
from kdjax.training.phase import BatchShape
from tests.support import tiny

MODEL = replace(tiny.STUDENT, layers=1)
"""What the probe is fitted on here: compiled once for all tests."""
SHAPE = BatchShape(batch_size=16, seq_len=12, max_predictions=3)
SETTINGS = MlmProbeConfig(
    tokens=120 * SHAPE.tokens_per_step, batch_size=SHAPE.batch_size, learning_rate=2e-2
)
TOKENS = 10
"""Tokens that planted text consists of: ids from 5 on."""


@cache
def model() -> Model:
    config, params = init(MODEL, 0)
    # As large as trained ones are: a tied decoder has no other scale.
    word = 20 * params["embeddings"]["word"]["embedding"]
    return Model(
        config, {**params, "embeddings": {**params["embeddings"], "word": {"embedding": word}}}
    )


def text(seed: int, count: int, *, planted: bool) -> list[dict[str, np.ndarray]]:
    """Make batches whose labels are the tokens that stand at the slots, or drawn by themselves."""
    rng = np.random.default_rng([seed, planted])
    batches = []
    for number in range(count):
        batch = tiny.batch(1000 * seed + number, SHAPE)
        valid = batch["valid"]
        tokens = np.where(valid, rng.integers(5, 5 + TOKENS, valid.shape), 0).astype(np.int32)
        # A label is the token that is really there, which its state then holds.
        slots = batch["slots"]
        labels = np.take_along_axis(tokens, slots, axis=1)
        # Drawn apart from the text, nothing in a state tells it.
        if not planted:
            labels = rng.integers(5, 5 + TOKENS, slots.shape)
        weights = np.take_along_axis(valid, slots, axis=1).astype(np.float32)
        batches.append(
            {**batch, "tokens": tokens, "labels": labels.astype(np.int32), "label_weights": weights}
        )
    return batches


@dataclass(frozen=True)
class Text:
    """Training text whose batches are given."""

    batches: Sequence[Mapping[str, np.ndarray]]

    def iterate(self, seen: int) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        assert seen == 0
        for number, batch in enumerate(self.batches):
            yield number * SHAPE.batch_size, batch


def fit(
    settings: MlmProbeConfig,
    config: ModelConfig,
    params: Any,
    batches: Sequence[Mapping[str, np.ndarray]],
) -> FittedProbe:
    return MlmProbe(settings, Text(batches), SHAPE).fit(config, params)


def loss(settings: MlmProbeConfig, *, planted: bool) -> float:
    # Fitted on one text and measured on another.
    fitted = fit(settings, *model(), text(1, 120, planted=planted))
    return fitted.measure(HeldOut(text(2, 10, planted=planted))).loss


@pytest.mark.parametrize("features", ["mix", "last"])
@pytest.mark.parametrize("decoder", ["free", "tied"])
def test_tokens_in_the_states_are_read_almost_without_loss(features: str, decoder: str) -> None:
    assert loss(replace(SETTINGS, features=features, decoder=decoder), planted=True) < 0.1


def test_labels_absent_from_states_cost_their_entropy() -> None:
    actual = loss(SETTINGS, planted=False)
    assert math.log(TOKENS) - 0.02 < actual < math.log(TOKENS) + 0.15


def test_equal_models_get_bitwise_equal_probes_and_stay_unchanged() -> None:
    config, params = model()
    before = jax.tree.map(np.array, params)
    copies = [jax.tree.map(np.array, params) for _ in range(2)]
    # A few steps suffice for equality of bits.
    settings = replace(SETTINGS, tokens=4 * SHAPE.tokens_per_step)
    first = fit(settings, config, copies[0], text(1, 9, planted=True))
    second = fit(settings, config, copies[1], text(1, 9, planted=True))
    assert first.losses == second.losses
    assert len(first.losses) == 4
    # The twin at half the tokens is equal as well.
    for name in ("head", "half"):
        jax.tree.map(np.testing.assert_array_equal, getattr(first, name), getattr(second, name))
    # The models that were probed are as they were.
    for copy in copies:
        jax.tree.map(np.testing.assert_array_equal, copy, before)


def test_model_without_mlm_head_gets_same_probe() -> None:
    config, params = model()
    settings = replace(SETTINGS, tokens=4 * SHAPE.tokens_per_step)
    # A probe has its own head, and reads the encoder alone.
    bare = {name: part for name, part in params.items() if name != "mlm"}
    first = fit(settings, config, params, text(1, 4, planted=True))
    second = fit(settings, config, bare, text(1, 4, planted=True))
    assert first.losses == second.losses


def test_half_way_twin_equals_probe_of_half_the_tokens() -> None:
    batches = text(1, 10, planted=True)
    whole = fit(replace(SETTINGS, tokens=10 * SHAPE.tokens_per_step), *model(), batches)
    half = fit(replace(SETTINGS, tokens=5 * SHAPE.tokens_per_step), *model(), batches)
    jax.tree.map(np.testing.assert_array_equal, whole.half, half.head)


def test_new_head_predicts_uniformly() -> None:
    form = ProbeHead(MODEL, "free", "mix")
    states = form.states(model().params, text(1, 1, planted=True)[0])
    # A head of zeros gives every token the same logit.
    logits = form.logits(form.init(), states, model().params["embeddings"]["word"]["embedding"])
    np.testing.assert_array_equal(
        logits, np.zeros((SHAPE.batch_size, SHAPE.max_predictions, MODEL.vocab_size))
    )
    fitted = fit(
        replace(SETTINGS, tokens=2 * SHAPE.tokens_per_step),
        *model(),
        text(1, 2, planted=True),
    )
    # Before its first step it pays the logarithm of the vocabulary.
    assert fitted.losses[0] == pytest.approx(math.log(MODEL.vocab_size), rel=1e-6)
    assert sum(fitted.layer_weights) == pytest.approx(1)


def test_states_at_slots_are_standardised_by_layer() -> None:
    batch = text(1, 1, planted=True)[0]
    # Both layers' states at the slots, standardised in float64.
    hidden = forward(MODEL, model().params, batch, FeatureRequest(hidden=frozenset({0, 1}))).hidden
    expected = np.stack([np.asarray(hidden[layer], np.float64) for layer in (0, 1)], axis=2)
    expected = np.take_along_axis(expected, batch["slots"][:, :, None, None], axis=1)
    expected -= expected.mean(-1, keepdims=True)
    expected /= np.sqrt((expected**2).mean(-1, keepdims=True) + 1e-5)
    actual = ProbeHead(MODEL, "free", "mix").states(model().params, batch)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_standardized_ignores_scale_and_shift() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)), jnp.float32)
    np.testing.assert_allclose(standardized(7 * x + 3), standardized(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", ["mix", "last"])
@pytest.mark.parametrize("decoder", ["free", "tied"])
def test_cost_is_within_a_tenth_of_the_formulas(features: str, decoder: str) -> None:
    model = ModelConfig(layers=2, width=128, heads=4, ffn=512, vocab_size=1024, max_positions=64)
    shape = BatchShape(batch_size=16, seq_len=64, max_predictions=10)
    settings = MlmProbeConfig(
        tokens=11 * shape.tokens_per_step, batch_size=16, features=features, decoder=decoder
    )
    cost = cost_of(settings, model, shape)
    # The formulas count matmuls of the encoder, 2 FLOPs a product and sum.
    slots = 16 * 10
    width = 128
    layer = 4 * width * width + 2 * width * 512 + 2 * 64 * width
    assert cost.forward == pytest.approx(2 * shape.tokens_per_step * 2 * layer, rel=0.1)
    # Forward, and backward to the parameters and, but for the first map, to its input.
    # The head has one dense map and the output layer, forward and backward.
    dense = 2 * slots * width * width
    output = 2 * slots * width * 1024
    matmuls = 2 * dense + 2 * output
    parameters = width * width
    # A free decoder has a weight gradient of its own.
    if decoder == "free":
        matmuls += output
        parameters += 1024 * width
    # Adam takes some 15 operations a parameter, the softmax some 10 a logit, the mix a few a state.
    rest = 15 * parameters + 10 * slots * 1024
    # The mix weighs three states of each slot.
    if features == "mix":
        rest += 6 * slots * 3 * width
    assert cost.update == pytest.approx(matmuls + rest, rel=0.1)
    assert cost.steps == 11
    # The twin at half the tokens pays updates and no forward passes.
    assert cost.total == 11 * cost.forward + (11 + 5) * cost.update


def test_tokens_for_less_than_two_steps_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"evaluation\.mlm_probe\.tokens is 300, expected 0, or at least two steps"
    ):
        steps_of(replace(SETTINGS, tokens=300), SHAPE)


@pytest.mark.parametrize(
    "setting",
    [
        {"tokens": -1},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"tolerance": -0.1},
        {"charged": True, "along_the_way": True},
    ],
)
def test_invalid_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"evaluation\.mlm_probe\."):
        MlmProbeConfig(**setting)


def test_curve_averages_training_loss_over_even_parts() -> None:
    batches = text(1, 40, planted=True)
    fitted = fit(replace(SETTINGS, tokens=40 * SHAPE.tokens_per_step), *model(), batches)
    curve = fitted.curve(SHAPE.tokens_per_step)
    # Twenty points of two steps each.
    assert [point["tokens"] for point in curve] == [
        2 * n * SHAPE.tokens_per_step for n in range(1, 21)
    ]
    assert curve[3]["loss"] == pytest.approx(np.mean(fitted.losses[6:8]))
