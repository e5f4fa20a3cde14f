"""Layers of two kinds, gated blocks and a first layer without a norm: every way of computing them
gives the same, and packing, padding and loops change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ComputeConfig, ModelConfig, ModelSpec
from kdjax.errors import InputError
from kdjax.models import FeatureRequest, abstract_params, forward, init, pooled_state, zoo
from kdjax.models.encoder import Encoder, LayerBlock
from kdjax.models.initialization import ShapesOnly
from kdjax.models.ops.dispatch import trace_reference
from tests.models.fixtures import packed

CONFIG = zoo.resolve(
    ModelSpec(
        family="modernbert",
        layers=5,
        width=12,
        heads=2,
        ffn=20,
        vocab_size=40,
        max_positions=16,
        attention_window=5,
        global_every=2,
        dropout=0.3,
        attention_dropout=0.2,
    )
)
LAST = FeatureRequest(hidden=frozenset({5}))


def params_of(config: ModelConfig) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32), abstract_params(config)
    )


def batch_of(*rows: list[int], length: int = 12) -> dict[str, np.ndarray]:
    """Return rows of packed documents of the given lengths, padded."""
    segments, positions = packed(rows, length)
    tokens = np.random.default_rng(1).integers(1, 40, segments.shape) * (segments > 0)
    return {"tokens": tokens.astype(np.int32), "segments": segments, "positions": positions}


BATCH = batch_of([12], [5, 4])


def run(compute: ComputeConfig) -> Any:
    """Return features with dropout, and the gradient of a loss that tells every entry apart."""

    def loss(params: Any) -> Any:
        features = forward(
            CONFIG, params, BATCH, LAST, dropout_key=jax.random.key(7), compute=compute
        )
        hidden = features.hidden[5]
        return jnp.mean(hidden * jnp.cos(jnp.arange(hidden.size)).reshape(hidden.shape)), features

    gradient, features = jax.jit(jax.grad(loss, has_aux=True))(params_of(CONFIG))
    return features, gradient


def distance(tree: Any, reference: Any) -> float:
    """Return the norm of the difference relative to the reference's, over a whole tree."""
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
    want = np.concatenate([np.ravel(x) for x in jax.tree.leaves(reference)])
    return float(np.linalg.norm(flat - want) / np.linalg.norm(want))


@pytest.fixture(scope="module")
def in_reference_form() -> Any:
    with trace_reference():
        return run(ComputeConfig())


@pytest.mark.parametrize(
    "compute", [{}, {"scan": True}, {"scan": True, "remat": "full"}, {"remat": "dots"}], ids=str
)
def test_every_way_of_computing_equals_the_reference_dropout_included(
    compute: dict[str, Any], in_reference_form: Any
) -> None:
    got = run(ComputeConfig(**compute))
    assert max(map(distance, got, in_reference_form)) < 2e-6


def blocks(config: ModelConfig, last: int) -> list[LayerBlock]:
    encoder = Encoder(config, ShapesOnly(), ComputeConfig(scan=True), mlm=False)
    return encoder._blocks(FeatureRequest(hidden=frozenset({last})), last)


def test_loop_takes_both_kinds_of_layers_a_step_and_leaves_what_fills_none() -> None:
    # Nothing is asked of the layers below the last; the first has no norm, and is by itself.
    deep = replace(CONFIG, layers=9)
    assert blocks(deep, 9) == [
        LayerBlock(range(1, 2)),
        LayerBlock(range(2, 8), 2),
        LayerBlock(range(8, 9)),
        LayerBlock(range(9, 10)),
    ]
    # All alike, a step is a layer.
    alike = replace(deep, attention_window=0, global_every=1, first_norm=True, family="bert")
    assert blocks(alike, 9) == [LayerBlock(range(1, 9)), LayerBlock(range(9, 10))]


def test_packed_documents_equal_those_alone_and_padding_enters_nothing() -> None:
    config = replace(CONFIG, layers=3)
    layers = frozenset({1, 2, 3})
    request = FeatureRequest(layers, layers, layers, layers, hidden=layers | {0})
    params = params_of(config)

    @jax.jit
    def features(batch: Any) -> Any:
        return forward(config, params, batch, request)

    packed = batch_of([5, 4])
    whole = jax.tree.map(np.asarray, features(packed))
    for start, stop in ((0, 5), (5, 9)):
        alone = {name: array[:, start:stop] for name, array in packed.items()}
        alone["segments"] = np.ones_like(alone["tokens"])
        single = features(alone)
        for layer in layers:
            inside = slice(start, stop)
            for name in ("query", "key", "value"):
                got = getattr(whole, name)[layer][:, :, inside]
                np.testing.assert_allclose(got, getattr(single, name)[layer], atol=2e-5)
            scores = whole.scores[layer][:, :, inside, inside]
            np.testing.assert_allclose(scores, single.scores[layer], atol=2e-5)
            np.testing.assert_allclose(
                whole.hidden[layer][:, inside], single.hidden[layer], atol=2e-5
            )
    # Equal bits: padding enters no sum.
    other = {**packed, "tokens": packed["tokens"].copy()}
    other["tokens"][:, 9:] = 7
    moved = np.asarray(features(other).hidden[3])
    np.testing.assert_array_equal(moved[:, :9], whole.hidden[3][:, :9])


def test_local_layer_reads_half_a_window_to_either_side() -> None:
    config = replace(CONFIG, layers=2)
    request = FeatureRequest(hidden=frozenset({1, 2}))
    params = params_of(config)
    # The global first layer mixes everything: without it a layer's own reach is seen.
    params["layers"]["1"]["attention"]["output"]["kernel"] *= 0
    batch = batch_of([12])
    before = forward(config, params, batch, request).hidden
    batch["tokens"][0, 6] += 1
    after = forward(config, params, batch, request).hidden
    moved = [np.flatnonzero(np.abs(after[n] - before[n]).max(axis=(0, 2)) > 0) for n in (1, 2)]
    assert moved[0].tolist() == [6]
    assert moved[1].tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("layers", [4, 5], ids=["local", "global"])
def test_first_tokens_state_equals_that_of_the_whole_last_layer(layers: int) -> None:
    config = replace(CONFIG, layers=layers)
    params = params_of(config)
    request = FeatureRequest(hidden=frozenset({layers}))
    whole = forward(config, params, BATCH, request).hidden[layers]
    first = pooled_state(config, params, BATCH)
    np.testing.assert_allclose(first, whole[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("sites", "dropped"),
    [("bert", (True, True)), ("distilbert", (False, True)), ("modernbert", (True, False))],
)
def test_outputs_are_dropped_out_where_the_model_of_that_name_does(
    sites: Any, dropped: tuple[bool, bool]
) -> None:
    """Of attention's output and the feed-forward block's, seen where the other adds nothing."""
    config = ModelConfig(
        layers=1,
        width=12,
        heads=2,
        ffn=20,
        vocab_size=40,
        norm="pre",
        embedding_dropout=0.0,
        dropout=0.5,
        attention_dropout=0.5,
        dropout_sites=sites,
    )
    seen = []
    for silent in ("ffn", "attention"):
        params = params_of(config)
        # One block adds nothing; the other adds ones, so that only an output's own dropout shows.
        for block, name in (("ffn", "down"), ("attention", "output")):
            linear = params["layers"]["1"][block][name]
            linear["kernel"] *= 0
            linear["bias"] = np.full(12, 0.0 if block == silent else 1.0, np.float32)
        request = FeatureRequest(hidden=frozenset({1}))
        with_dropout = forward(config, params, BATCH, request, dropout_key=jax.random.key(1))
        without = forward(config, params, BATCH, request)
        seen.append(bool(np.abs(with_dropout.hidden[1] - without.hidden[1]).max() > 1e-3))
    assert tuple(seen) == dropped


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_window": 0}, "attention_window is 0 and global_every 2"),
        ({"global_every": 1}, "attention_window is 5 and global_every 1"),
        ({"norm": "post"}, "first_norm is False and norm 'post', expected norm 'pre'"),
        ({"norm": "post", "first_norm": True}, "norm is 'post', expected 'pre', as every modernb"),
        ({"first_norm": True}, "first_norm is True, expected False, as every modernbert has it"),
        ({"pad_token_id": 40}, "pad_token_id is 40, expected an id of the vocabulary, below 40"),
    ],
)
def test_config_that_contradicts_itself_or_its_family_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        replace(CONFIG, **changes)


def test_start_of_outputs_is_narrower_by_depth() -> None:
    config = zoo.resolve(ModelSpec(family="modernbert", size="8x256", vocab_size=500))
    params = init(config, 0).params
    layer = params["layers"]["8"]
    # A normal cut at two deviations has 0.88 of its standard deviation.
    for kernel, scale in (
        (layer["attention"]["query"], 1.0),
        (layer["ffn"]["gate"], 1.0),
        (layer["attention"]["output"], 0.25),
        (layer["ffn"]["down"], 0.25),
        (params["mlm"]["dense"], 0.25),
    ):
        np.testing.assert_allclose(np.std(kernel["kernel"]), 0.88 * 0.02 * scale, rtol=0.02)
        assert "bias" not in kernel
