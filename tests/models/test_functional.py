"""The encoder against a plain NumPy reading of BERT, and its invariances."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.models import (
    FeatureRequest,
    abstract_params,
    classify,
    count_params,
    forward,
    init,
    init_mlm_head,
    init_task_head,
    initialization,
    pooled_state,
    zoo,
)
from tests.models.fixtures import BatchOf, ConfigWith, Scramble
from tests.support.tolerance import assert_sums_equal

EXHAUSTIVE = pytest.mark.exhaustive
HELD_IN_PAIRS = [
    ["post", True, "tanh"],
    ["post", False, "exact"],
    ["pre", True, "exact"],
    ["pre", False, "tanh"],
]
"""Norm, norm of the embeddings and GELU of models each two of whose settings another model has."""


def everything(config: ModelConfig) -> FeatureRequest:
    layers = frozenset(range(1, config.layers + 1))
    return FeatureRequest(layers, layers, layers, layers, hidden=layers | {0}, logits=True)


def plain(config: ModelConfig, params: Any, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Compute all features of one row at a time, in float64, from the definitions."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def linear(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        return x @ w["kernel"] + w["bias"]

    def norm(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        std = np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps)
        return centred / std * w["scale"] + w["bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        if config.gelu == "exact":
            return x * (1 + erf(x / math.sqrt(2))) / 2
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    def ffn(w: dict[str, Any], x: np.ndarray) -> np.ndarray:
        return linear(w["down"], gelu(linear(w["up"], x)))

    def rotated(heads: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Rotate as complex numbers: (x_i + j x_{i + d/2}) exp(j m base^(-2i/d)) for position m."""
        if config.positions == "learned":
            return heads
        width = heads.shape[-1]
        frequencies = config.rotary_base ** (-2 * np.arange(width // 2) / width)
        pairs = heads[..., : width // 2] + 1j * heads[..., width // 2 :]
        pairs = pairs * np.exp(1j * positions[:, None] * frequencies)
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    def row(
        tokens: np.ndarray,
        segments: np.ndarray,
        positions: np.ndarray,
        types: np.ndarray,
        slots: np.ndarray,
    ) -> dict[str, Any]:
        tables = p["embeddings"]
        # The sum of the tables, normalised where the config says so.
        x = tables["word"]["embedding"][tokens] + tables["type"]["embedding"][types]
        x = x + tables["position"]["embedding"][positions] if config.positions == "learned" else x
        x = norm(tables["norm"], x) if config.embedding_norm else x
        out = {"hidden": {0: x}, "scores": {}, "query": {}, "key": {}, "value": {}}
        # One layer after another, each feature of it stored by its number.
        for n in range(1, config.layers + 1):
            w = p["layers"][str(n)]
            # Before attention or behind it: that is all the two kinds of norm differ in here.
            attended = norm(w["attention_norm"], x) if config.norm == "pre" else x
            for name in ("query", "key", "value"):
                projected = linear(w["attention"][name], attended)
                # Values carry no position; queries and keys are turned by theirs.
                heads = np.stack(np.split(projected, config.heads, axis=-1))
                out[name][n] = heads if name == "value" else rotated(heads, positions)
            scores = out["query"][n] @ out["key"][n].swapaxes(1, 2)
            out["scores"][n] = scores / math.sqrt(config.width / config.heads)
            # Tokens of other segments, padding among them, have no weight.
            weights = np.exp(out["scores"][n]) * (segments[:, None] == segments[None])
            context = weights / weights.sum(-1, keepdims=True) @ out["value"][n]
            # Residual connections, and the feed-forward block.
            x = x + linear(w["attention"]["output"], np.concatenate(context, -1))
            if config.norm == "post":
                x = norm(w["attention_norm"], x)
                x = norm(w["ffn_norm"], x + ffn(w["ffn"], x))
            else:
                x = x + ffn(w["ffn"], norm(w["ffn_norm"], x))
                x = norm(p["final_norm"], x) if n == config.layers else x
            out["hidden"][n] = x
        # The head sees only the slots, and its output layer is the word table.
        head = p["mlm"]
        at_slots = norm(head["norm"], gelu(linear(head["dense"], x[slots])))
        out["logits"] = at_slots @ tables["word"]["embedding"].T + head["bias"]
        return out

    types = batch.get("types", np.zeros_like(batch["tokens"]))
    columns = [batch["tokens"], batch["segments"], batch["positions"], types, batch["slots"]]
    rows = [row(*arrays) for arrays in zip(*columns, strict=True)]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *rows)


@pytest.mark.parametrize(
    "changes",
    [
        # Each two of the three settings in all their combinations
        *(
            pytest.param(
                {"norm": norm, "embedding_norm": embedding_norm, "gelu": gelu},
                marks=[EXHAUSTIVE] if [norm, embedding_norm, gelu] in HELD_IN_PAIRS else [],
            )
            for norm, embedding_norm, gelu in itertools.product(
                ("post", "pre"), (True, False), ("exact", "tanh")
            )
        ),
        {"positions": "rotary"},
        {"positions": "rotary", "rotary_base": 50.0, "norm": "pre"},
    ],
)
def test_every_feature_equals_its_definition_in_numpy(
    config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble, changes: dict[str, Any]
) -> None:
    config = config_with(**changes)
    params = scrambled(init(config, 1).params)
    # Token types take part in one half of the cases, and are all 0 in the other.
    batch = batch_of([[16], [5, 4, 3], [9]], types=config.gelu == "tanh")
    got = forward(config, params, batch, everything(config))
    want = plain(config, params, batch)
    for name, expected in want.items():
        for value, reference in zip(
            jax.tree.leaves(getattr(got, name)), jax.tree.leaves(expected), strict=True
        ):
            assert value.shape == reference.shape
            np.testing.assert_allclose(value, reference, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"norm": "pre", "positions": "rotary"}], ids=str)
def test_feature_does_not_depend_on_what_else_is_requested(
    config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble, changes: dict[str, Any]
) -> None:
    config = config_with(**changes)
    params = scrambled(init(config, 1).params)
    batch = batch_of([[16], [5, 4]])
    whole = forward(config, params, batch, everything(config))
    for name in ("scores", "query", "key", "value", "hidden"):
        # Layer 0 is the embeddings, which have hidden states and nothing else.
        for layer in range(name != "hidden", config.layers + 1):
            alone = forward(config, params, batch, FeatureRequest(**{name: frozenset({layer})}))
            # No sum is longer than a feed-forward block is wide; there are eight matmuls and norms
            # in a layer.
            sums = {"summands": config.ffn, "stages": 8 * config.layers}
            assert_sums_equal(getattr(alone, name)[layer], getattr(whole, name)[layer], **sums)
            assert len(jax.tree.leaves(alone)) == 1  # and nothing else is there


def test_model_first_used_inside_a_trace_works_outside_it_too(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    config = config_with(layers=1, ffn=41)  # no other test has built this one
    batch = batch_of([[16]])
    request = FeatureRequest(logits=True, hidden=frozenset({0}))
    # Shapes alone are made, so that the model is traced for the first time inside the jit below.
    shapes = jax.eval_shape(lambda: init(config, 0).params)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    inside = jax.jit(lambda p, b: forward(config, p, b, request))(params, batch)
    outside = forward(config, params, batch, request)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"norm": "pre", "positions": "rotary", "rotary_base": 50.0}], ids=str
)
def test_padding_and_packing_change_nothing(
    config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble, changes: dict[str, Any]
) -> None:
    config = config_with(**changes)
    params = scrambled(init(config, 1).params)
    packed = batch_of([[5, 5, 5]])
    request = FeatureRequest(
        scores=frozenset({3}), value=frozenset({3}), hidden=frozenset({0, 2, 3})
    )

    def run(batch: dict[str, np.ndarray]) -> Any:
        return jax.tree.map(np.asarray, forward(config, params, batch, request))

    # Each document alone, in a row of its own length, is what the packed row must give.
    whole = run(packed)
    for start, stop in ((0, 5), (5, 10), (10, 15)):
        alone = {name: packed[name][:, start:stop] for name in ("tokens", "positions")}
        single = run({**alone, "segments": np.ones_like(alone["tokens"])})
        # Scores across documents have no meaning; those inside one must be the same.
        np.testing.assert_allclose(
            whole.scores[3][:, :, start:stop, start:stop],
            single.scores[3],
            atol=1e-5,
        )
        np.testing.assert_allclose(whole.value[3][:, :, start:stop], single.value[3], atol=1e-5)
        for layer in (0, 2, 3):
            np.testing.assert_allclose(
                whole.hidden[layer][:, start:stop], single.hidden[layer], atol=1e-5
            )
    other = {**packed, "tokens": packed["tokens"].copy()}
    other["tokens"][:, 15:] = 7  # what stands in the padding
    # Equal bits, not rounding: padding must not enter any sum.
    np.testing.assert_array_equal(run(other).hidden[3][:, :15], whole.hidden[3][:, :15])
    other["tokens"][:, 7] += 1  # a neighbour in the same row
    moved = np.abs(run(other).hidden[3] - whole.hidden[3]).max(axis=(0, 2)) > 0
    # Only the document that holds the changed token may move.
    assert moved[:15].tolist() == [False] * 5 + [True] * 5 + [False] * 5


def test_features_of_a_row_of_padding_alone_are_finite(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    config = config_with()
    batch = batch_of([[4], [4]])
    # The second row has no segment at all: every softmax in it is over nothing.
    batch["segments"][1] = 0
    features = forward(config, init(config, 0).params, batch, everything(config))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(features))


def test_gradients_are_finite_and_stay_inside_a_segment(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    config = config_with(layers=2)
    batch = batch_of([[6, 5]])
    params = init(config, 0).params

    def first_segment(table: jax.Array) -> jax.Array:
        tables = {**params["embeddings"], "word": {"embedding": table}}
        hidden = forward(
            config, {**params, "embeddings": tables}, batch, FeatureRequest(hidden=frozenset({2}))
        ).hidden[2]
        return (hidden[:, :6] ** 3).sum()

    # Every token has another number, so that the rows of the table with a gradient tell which
    # count.
    batch["tokens"][0, :11] = np.arange(11) + 1
    table = params["embeddings"]["word"]["embedding"]
    grad = np.asarray(jax.jit(jax.grad(first_segment))(table))
    assert np.isfinite(grad).all()
    touched = np.abs(grad).max(axis=1) > 0
    assert np.flatnonzero(touched).tolist() == [1, 2, 3, 4, 5, 6]


def test_dropout_is_off_without_a_key_and_a_function_of_the_key(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    config = config_with()
    params = init(config, 0).params
    batch = batch_of([[16]])
    request = FeatureRequest(hidden=frozenset({0, 1, 2, 3}))

    def run(key: jax.Array | None, config: ModelConfig = config) -> Any:
        return jax.tree.map(
            np.asarray, forward(config, params, batch, request, dropout_key=key).hidden
        )

    # The same key, another key, no key, and a key with rates of 0.
    without_key = run(None)
    dropped = run(jax.random.key(1))
    again = run(jax.random.key(1))
    otherwise = run(jax.random.key(2))
    without_rate = run(
        jax.random.key(1), dataclasses.replace(config, dropout=0.0, attention_dropout=0.0)
    )
    for layer in range(4):
        # A step resumed from a checkpoint draws what it drew before.
        np.testing.assert_array_equal(dropped[layer], again[layer])
        np.testing.assert_array_equal(without_key[layer], without_rate[layer])
        # The rates show: features move, and another key moves them elsewhere.
        assert np.abs(dropped[layer] - without_key[layer]).max() > 0.1
        assert np.abs(dropped[layer] - otherwise[layer]).max() > 0.1


def test_embedding_dropout_has_its_rate_and_keeps_the_mean(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    config = config_with()
    params = init(config, 0).params
    # Forty sequences make enough draws for the bounds below.
    batch = batch_of([[16]] * 40)
    request = FeatureRequest(hidden=frozenset({0}))
    whole = forward(config, params, batch, request).hidden[0]
    key = jax.random.key(3)
    dropped = np.asarray(forward(config, params, batch, request, dropout_key=key).hidden[0])
    keep = dropped != 0
    # The rate is 0.3: 15 360 draws have a standard deviation of 0.004.
    assert abs(keep.mean() - 0.7) < 0.015
    np.testing.assert_allclose(dropped[keep], whole[keep] / 0.7, rtol=1e-5)


def test_every_dropout_site_and_layer_draws_other_numbers(
    config_with: ConfigWith, batch_of: BatchOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with()
    params = init(config, 0).params
    request = FeatureRequest(hidden=frozenset({3}))
    keys = []
    bernoulli = jax.random.bernoulli

    def recorded(key: jax.Array, *args: Any) -> jax.Array:
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return bernoulli(key, *args)

    # Each call to the generator is noted by its key.
    monkeypatch.setattr(jax.random, "bernoulli", recorded)
    key = jax.random.key(0, impl="rbg")  # which stays a key
    forward(config, params, batch_of([[16]]), request, dropout_key=key)
    # The embeddings once, and each layer's attention, output and feed-forward block.
    assert len(keys) == 1 + 3 * config.layers
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_each_dropout_rate_changes_features_alone(
    config_with: ConfigWith, batch_of: BatchOf, rate: str
) -> None:
    config = config_with(**{"dropout": 0.0, "attention_dropout": 0.0, rate: 0.5})
    params = init(config, 0).params
    batch = batch_of([[16]])
    request = FeatureRequest(hidden=frozenset({3}))
    whole = forward(config, params, batch, request).hidden[3]
    dropped = forward(config, params, batch, request, dropout_key=jax.random.key(0)).hidden[3]
    assert np.abs(whole - dropped).max() > 1e-3


def test_init_draws_berts_distribution(config_with: ConfigWith) -> None:
    model = init(config_with(vocab_size=5000), 5)
    kinds: dict[str, list[np.ndarray]] = {"kernel": [], "embedding": [], "bias": [], "scale": []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model.params):
        assert leaf.dtype == jnp.float32
        kinds[path[-1].key].append(np.asarray(leaf).ravel())
    assert np.all(np.concatenate(kinds["bias"]) == 0)
    assert np.all(np.concatenate(kinds["scale"]) == 1)
    drawn = np.concatenate(kinds["kernel"] + kinds["embedding"])
    # A normal of std 0.02 cut at two standard deviations has a std of 0.8796 x 0.02.
    assert np.abs(drawn).max() <= 0.04
    assert drawn.std() == pytest.approx(0.02 * 0.8796, rel=0.01)
    assert abs(drawn.mean()) < 1e-4


@pytest.mark.parametrize(
    ("width", "std"), [(768, 0.02), (384, 0.02 * 2**0.75), (96, 0.02 * 8**0.75)]
)
def test_init_std_by_width_is_berts_at_768_and_larger_below(
    config_with: ConfigWith, width: int, std: float
) -> None:
    by_width = initialization.init_std(config_with(width=width, init="by_width"))
    assert by_width == pytest.approx(std, rel=1e-12)
    assert initialization.init_std(config_with(width=width)) == 0.02


@pytest.mark.parametrize(
    "settings", [{"init_std": 0.1}, {"init": "by_width", "init_std": 0.1 / 32**0.75}], ids=str
)
def test_init_std_is_that_of_every_matrix_and_table(
    config_with: ConfigWith, settings: dict[str, Any]
) -> None:
    # A large vocabulary, so that there are enough draws for 1%.
    leaves = jax.tree.leaves(init(config_with(vocab_size=5000, **settings), 5).params)
    drawn = np.concatenate([np.ravel(leaf) for leaf in leaves if leaf.ndim == 2])
    # A normal of std 0.1 cut at two standard deviations has a std of 0.8796 x 0.1.
    assert np.abs(drawn).max() <= 0.2 + 1e-7
    assert drawn.std() == pytest.approx(0.08796, rel=0.01)


def test_init_is_a_function_of_the_seed(config_with: ConfigWith) -> None:
    params = init(config_with(), 0).params
    jax.tree.map(np.testing.assert_array_equal, params, init(config_with(), 0).params)
    # Two seeds of three layers each: all six kernels differ.
    layers = [*params["layers"].values(), *init(config_with(), 1).params["layers"].values()]
    assert len({np.asarray(layer["ffn"]["up"]["kernel"]).tobytes() for layer in layers}) == 6


@pytest.mark.parametrize(
    "changes", [{}, {"norm": "pre"}, {"embedding_norm": False}, {"positions": "rotary"}], ids=str
)
def test_abstract_params_are_the_shapes_of_init_and_cost_nothing(
    config_with: ConfigWith, changes: dict[str, Any]
) -> None:
    config = config_with(**changes)
    params = init(config, 0).params
    # The tree, the shapes and the types are those a checkpoint will have.
    assert abstract_params(config) == jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
    )
    assert abstract_params(config) == jax.eval_shape(lambda: init(config, 0).params)
    assert abstract_params(config, mlm=False) == {
        k: v for k, v in abstract_params(config).items() if k != "mlm"
    }
    # Tables and norms stand in the tree only where the config has them.
    assert ("final_norm" in params) == (config.norm == "pre")
    assert ("position" in params["embeddings"]) == (config.positions == "learned")
    # Real parameters of this size would take 600 GB.
    huge = abstract_params(zoo.get("12x32768"))
    assert sum(count_params(huge)) > 150e9


def test_abstract_params_may_be_changed_by_the_caller(config_with: ConfigWith) -> None:
    abstract_params(config_with())["layers"].clear()
    assert len(abstract_params(config_with())["layers"]) == 3


def test_new_mlm_head_fits_a_model_without_one(config_with: ConfigWith, batch_of: BatchOf) -> None:
    config = config_with()
    batch = batch_of([[16]])
    params = init(config, 0).params
    head = init_mlm_head(config, 7)
    assert jax.tree.map(jnp.shape, head) == jax.tree.map(jnp.shape, params["mlm"])
    features = forward(config, {**params, "mlm": head}, batch, FeatureRequest(logits=True))
    assert features.logits.shape == (1, 4, 57)


def test_count_params_of_base_is_berts() -> None:
    sizes = count_params(abstract_params(zoo.get("base")))
    assert sizes.embeddings == (30522 + 512 + 2) * 768
    # BertForMaskedLM of bert-base-uncased has 109 514 298.
    assert sum(sizes) == 109_514_298
    # Rotary positions save the table, and cost no parameter.
    rotary = count_params(abstract_params(dataclasses.replace(zoo.get("base"), positions="rotary")))
    assert rotary == (sizes.embeddings - 512 * 768, sizes.others)


def last_hidden(config: ModelConfig, params: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    request = FeatureRequest(hidden=frozenset({config.layers}))
    return np.asarray(forward(config, params, batch, request).hidden[config.layers], np.float64)


def classified(head: Any, pooled: np.ndarray) -> np.ndarray:
    """Compute the scores of pooled hidden states from their definition."""
    head = jax.tree.map(np.asarray, head)
    x = np.tanh(pooled @ head["pooler"]["kernel"] + head["pooler"]["bias"])
    return x @ head["output"]["kernel"] + head["output"]["bias"]


def test_classify_pools_the_first_token(
    config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble
) -> None:
    config = config_with()
    batch = batch_of([[16], [5, 4]])
    params = scrambled(init(config, 0).params)
    head = scrambled(init_task_head(config, 3, 0))
    got = classify(config, params, head, batch)
    assert got.shape == (2, 3)
    assert got.dtype == jnp.float32
    # From here on the definition takes over: pooler, tanh, output layer.
    hidden = last_hidden(config, params, batch)
    np.testing.assert_allclose(got, classified(head, hidden[:, 0]), atol=1e-5)
    # Dropout follows the key, and is off without one.
    dropped = classify(config, params, head, batch, dropout_key=jax.random.key(0))
    again = classify(config, params, head, batch, dropout_key=jax.random.key(0))
    otherwise = classify(config, params, head, batch, dropout_key=jax.random.key(1))
    np.testing.assert_array_equal(dropped, again)
    assert np.abs(dropped - got).max() > 1e-3
    assert np.abs(dropped - otherwise).max() > 1e-3


def test_classify_pools_the_mean_over_valid_tokens(
    config_with: ConfigWith, batch_of: BatchOf, scrambled: Scramble
) -> None:
    config = config_with()
    batch = batch_of([[16], [5]])
    params = scrambled(init(config, 0).params)
    head = scrambled(init_task_head(config, 3, 0))
    hidden = last_hidden(config, params, batch)
    # The mean is over tokens; padding counts neither above nor below.
    means = [row[valid].mean(axis=0) for row, valid in zip(hidden, batch["valid"], strict=True)]
    got = classify(config, params, head, batch, pool="mean")
    np.testing.assert_allclose(got, classified(head, np.stack(means)), atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "positions"),
    [
        *(("post", "learned"), ("pre", "rotary")),
        pytest.param("post", "rotary", marks=EXHAUSTIVE),
        pytest.param("pre", "learned", marks=EXHAUSTIVE),
    ],
)
def test_first_tokens_state_equals_that_of_the_whole_layer(
    norm: str,
    positions: str,
    config_with: ConfigWith,
    batch_of: BatchOf,
    scrambled: Scramble,
) -> None:
    config = config_with(norm=norm, positions=positions)
    batch = batch_of([[16], [5, 4]])
    params = scrambled(init(config, 0).params)
    request = FeatureRequest(hidden=frozenset({config.layers}))

    def of_first(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(pooled_state(config, params, batch)))

    def of_all(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(forward(config, params, batch, request).hidden[config.layers][:, 0]))

    actual = pooled_state(config, params, batch)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, last_hidden(config, params, batch)[:, 0], atol=1e-5)
    # So do the gradients of every parameter.
    grads = jax.grad(of_first)(params)
    expected = jax.grad(of_all)(params)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5 * scale), grads, expected)


def test_classify_drops_out_the_pooled_vector(config_with: ConfigWith, batch_of: BatchOf) -> None:
    config = config_with(dropout=0.5, attention_dropout=0.0)
    params = init(config, 0).params
    batch = batch_of([[16]] * 40)
    head = init_task_head(config, 1, 0)
    # Tanh saturates: pooled is 1.
    head["pooler"] = {"kernel": jnp.zeros((24, 24)), "bias": jnp.full(24, 10.0)}
    head["output"] = {"kernel": jnp.ones((24, 1)), "bias": jnp.zeros(1)}
    got = np.asarray(classify(config, params, head, batch, dropout_key=jax.random.key(0)))[:, 0]
    # Each kept entry counts 1 / (1 - 0.5).
    np.testing.assert_allclose(got, 2 * np.round(got / 2), atol=1e-4)
    # A binomial of 24 draws, doubled, has mean 24 and standard deviation 4.9.
    assert abs(got.mean() - 24) < 3
    assert 3 < got.std() < 7


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            FeatureRequest(scores=frozenset({4})),
            "scores of layer 4 asked, expected a layer from 1 to 3",
        ),
        (
            FeatureRequest(value=frozenset({0})),
            "value of layer 0 asked, expected a layer from 1 to 3",
        ),
        (
            FeatureRequest(hidden=frozenset({2, 5})),
            "hidden of layer 5 asked, expected a layer from 0 to 3",
        ),
        (
            FeatureRequest(hidden=frozenset({-1})),
            "hidden of layer -1 asked, expected a layer from 0 to 3",
        ),
        (FeatureRequest(logits=True), "without an MLM head"),
    ],
)
def test_forward_refuses_what_the_model_does_not_have(
    config_with: ConfigWith, batch_of: BatchOf, request_: FeatureRequest, message: str
) -> None:
    config = config_with()
    params = {k: v for k, v in init(config, 0).params.items() if k != "mlm"}
    with pytest.raises(InputError, match=message):
        forward(config, params, batch_of([[16]]), request_)


def test_sequences_longer_than_the_positions_are_refused(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    config = config_with()
    params = init(config, 0).params
    head = init_task_head(config, 2, 0)
    request = FeatureRequest(hidden=frozenset({1}))
    # The last length that fits is no error.
    longest = batch_of([[20]], length=20)
    assert forward(config, params, longest, request).hidden[1].shape == (1, 20, 24)
    too_long = batch_of([[21]], length=21)
    message = "21 tokens, expected at most the model's 20 positions"
    with pytest.raises(InputError, match=message):
        forward(config, params, too_long, request)
    with pytest.raises(InputError, match=message):
        classify(config, params, head, too_long)


def test_decoder_without_a_bias_adds_none_and_gives_it_no_gradient(
    config_with: ConfigWith, batch_of: BatchOf
) -> None:
    with_bias = config_with()
    without = dataclasses.replace(with_bias, decoder_bias=False)
    batch = batch_of([[9]])
    params = init(without, 0).params
    bias = np.linspace(-1, 1, with_bias.vocab_size, dtype=np.float32)
    params["mlm"]["bias"] = jnp.asarray(bias)
    request = FeatureRequest(logits=True)
    plain_logits = forward(without, params, batch, request).logits
    biased = forward(with_bias, params, batch, request).logits
    np.testing.assert_allclose(biased, plain_logits + bias, rtol=1e-5, atol=1e-5)

    def total(params: Any) -> jax.Array:
        return forward(without, params, batch, request).logits.sum()

    gradient = jax.grad(total)(params)["mlm"]
    assert not gradient["bias"].any()
    assert gradient["dense"]["kernel"].any()
