"""The encoder against a plain NumPy reading of BERT, and its invariances."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

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
    starts,
    zoo,
)
from tests.tolerance import assert_sums_equal


def everything(config):
    layers = frozenset(range(1, config.layers + 1))
    return FeatureRequest(layers, layers, layers, layers, hidden=layers | {0}, logits=True)


def plain(config, params, batch):
    """All features of one row at a time, in float64, from the definitions."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def linear(w, x):
        return x @ w["kernel"] + w["bias"]

    def norm(w, x):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps) * w["scale"]
            + w["bias"]
        )

    def gelu(x):
        if config.gelu == "exact":
            return x * (1 + erf(x / math.sqrt(2))) / 2
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    def turned(heads, positions):
        """Rotary positions as complex numbers: (x_i + j x_{i + d/2}) exp(j m base^(-2i/d)) for
        position m."""
        if config.positions == "learned":
            return heads
        width = heads.shape[-1]
        frequencies = config.rotary_base ** (-2 * np.arange(width // 2) / width)
        pairs = heads[..., : width // 2] + 1j * heads[..., width // 2 :]
        pairs = pairs * np.exp(1j * positions[:, None] * frequencies)
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    def row(tokens, segments, positions, types, slots):
        tables = p["embeddings"]
        x = tables["word"]["embedding"][tokens] + tables["type"]["embedding"][types]
        x = x + tables["position"]["embedding"][positions] if config.positions == "learned" else x
        x = norm(tables["norm"], x) if config.embedding_norm else x
        out = {"hidden": {0: x}, "scores": {}, "query": {}, "key": {}, "value": {}}
        for n in range(1, config.layers + 1):
            w = p["layers"][str(n)]
            seen = norm(w["attention_norm"], x) if config.norm == "pre" else x
            mixed = []
            for part in ("query", "key", "value"):
                made = linear(w["attention"][part], seen)
                heads = np.stack(np.split(made, config.heads, axis=-1))
                out[part][n] = heads if part == "value" else turned(heads, positions)
            out["scores"][n] = np.stack(
                [q @ k.T for q, k in zip(out["query"][n], out["key"][n], strict=True)]
            )
            out["scores"][n] /= math.sqrt(config.width / config.heads)
            for scores, value in zip(out["scores"][n], out["value"][n], strict=True):
                weights = np.exp(scores) * (segments[:, None] == segments[None])
                mixed.append(weights / weights.sum(-1, keepdims=True) @ value)
            x = x + linear(w["attention"]["output"], np.concatenate(mixed, -1))
            if config.norm == "post":
                x = norm(w["attention_norm"], x)
                x = norm(
                    w["ffn_norm"], x + linear(w["ffn"]["down"], gelu(linear(w["ffn"]["up"], x)))
                )
            else:
                x = x + linear(
                    w["ffn"]["down"], gelu(linear(w["ffn"]["up"], norm(w["ffn_norm"], x)))
                )
                x = norm(p["final_norm"], x) if n == config.layers else x
            out["hidden"][n] = x
        head = p["mlm"]
        read = norm(head["norm"], gelu(linear(head["dense"], x[slots])))
        out["logits"] = read @ tables["word"]["embedding"].T + head["bias"]
        return out

    types = batch.get("types", np.zeros_like(batch["tokens"]))
    rows = zip(
        batch["tokens"], batch["segments"], batch["positions"], types, batch["slots"], strict=True
    )
    made = [row(*r) for r in rows]
    return jax.tree.map(lambda *r: np.stack(r), *made)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": norm, "embedding_norm": embedding_norm, "gelu": gelu}
        for norm in ("post", "pre")
        for embedding_norm in (True, False)
        for gelu in ("exact", "tanh")
    ]
    + [{"positions": "rotary"}, {"positions": "rotary", "rotary_base": 50.0, "norm": "pre"}],
)
def test_every_feature_is_what_the_definitions_say(config, batch_of, scrambled, changes):
    config = config(**changes)
    params = scrambled(init(config, 1).params)
    batch = batch_of([[16], [5, 4, 3], [9]], types=config.gelu == "tanh")
    got = forward(config, params, batch, everything(config))
    want = plain(config, params, batch)
    for name, expected in want.items():
        for value, reference in zip(
            jax.tree.leaves(getattr(got, name)), jax.tree.leaves(expected), strict=True
        ):
            assert value.shape == reference.shape
            np.testing.assert_allclose(value, reference, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("changes", [{}, {"norm": "pre"}, {"positions": "rotary"}], ids=str)
def test_features_do_not_depend_on_what_else_is_asked(config, batch_of, scrambled, changes):
    config = config(**changes)
    params = scrambled(init(config, 1).params)
    batch = batch_of([[16], [5, 4]])
    whole = forward(config, params, batch, everything(config))
    for name in ("scores", "query", "key", "value", "hidden"):
        for layer in range(name != "hidden", config.layers + 1):
            alone = forward(config, params, batch, FeatureRequest(**{name: frozenset({layer})}))
            # No sum is longer than a feed-forward block is wide; there are eight matmuls and norms
            # in a layer.
            sums = {"summands": config.ffn, "stages": 8 * config.layers}
            assert_sums_equal(getattr(alone, name)[layer], getattr(whole, name)[layer], **sums)
            assert [
                len(jax.tree.leaves(getattr(alone, n)))
                for n in ("scores", "query", "key", "value", "hidden")
            ].count(1) == 1
            assert alone.logits is None


def test_a_model_first_used_inside_a_trace_works_outside_it_too(config, batch_of):
    config = config(layers=1, ffn=41)  # no other test has built this one
    batch = batch_of([[16]])
    request = FeatureRequest(logits=True, hidden=frozenset({0}))
    shapes = jax.eval_shape(lambda: init(config, 0).params)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    inside = jax.jit(lambda p, b: forward(config, p, b, request))(params, batch)
    outside = forward(config, params, batch, request)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"norm": "pre"}, {"positions": "rotary", "rotary_base": 50.0}], ids=str
)
def test_padding_and_packing_change_nothing(config, batch_of, scrambled, changes):
    config = config(**changes)
    params = scrambled(init(config, 1).params)
    packed = batch_of([[5, 5, 5]])
    request = FeatureRequest(
        scores=frozenset({3}), value=frozenset({3}), hidden=frozenset({0, 2, 3})
    )

    def run(batch):
        return jax.tree.map(np.asarray, forward(config, params, batch, request))

    whole = run(packed)
    for start, stop in ((0, 5), (5, 10), (10, 15)):
        alone = {name: packed[name][:, start:stop] for name in ("tokens", "positions")}
        single = run({**alone, "segments": np.ones_like(alone["tokens"])})
        np.testing.assert_allclose(
            whole.scores[3][:, :, start:stop, start:stop], single.scores[3], atol=1e-5
        )
        np.testing.assert_allclose(whole.value[3][:, :, start:stop], single.value[3], atol=1e-5)
        for layer in (0, 2, 3):
            np.testing.assert_allclose(
                whole.hidden[layer][:, start:stop], single.hidden[layer], atol=1e-5
            )
    other = {**packed, "tokens": packed["tokens"].copy()}
    other["tokens"][:, 15:] = 7  # what stands in the padding
    np.testing.assert_array_equal(run(other).hidden[3][:, :15], whole.hidden[3][:, :15])
    other["tokens"][:, 7] += 1  # a neighbour in the same row
    moved = np.abs(run(other).hidden[3] - whole.hidden[3]).max(axis=(0, 2))
    assert np.all(moved[:5] == 0) and np.all(moved[5:10] > 0) and np.all(moved[10:15] == 0)


def test_a_row_of_padding_alone_is_finite(config, batch_of):
    config = config()
    batch = batch_of([[4], [4]])
    batch["segments"][1] = 0
    features = forward(config, init(config, 0).params, batch, everything(config))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(features))


def test_gradients_are_finite_and_stay_inside_a_segment(config, batch_of):
    config = config(layers=2)
    batch = batch_of([[6, 5]])
    params = init(config, 0).params

    def first_segment(table):
        tables = {**params["embeddings"], "word": {"embedding": table}}
        hidden = forward(
            config, {**params, "embeddings": tables}, batch, FeatureRequest(hidden=frozenset({2}))
        ).hidden[2]
        return (hidden[:, :6] ** 3).sum()

    batch["tokens"][0, :11] = np.arange(11) + 1
    gradient = np.asarray(
        jax.jit(jax.grad(first_segment))(params["embeddings"]["word"]["embedding"])
    )
    touched = np.abs(gradient).max(axis=1) > 0
    assert np.isfinite(gradient).all() and np.flatnonzero(touched).tolist() == [1, 2, 3, 4, 5, 6]


def test_dropout_is_off_without_a_key_and_a_function_of_the_key(config, batch_of):
    config = config()
    params = init(config, 0).params
    batch = batch_of([[16]])
    request = FeatureRequest(hidden=frozenset({0, 1, 2, 3}))

    def run(key, config=config):
        return jax.tree.map(
            np.asarray, forward(config, params, batch, request, dropout_key=key).hidden
        )

    plain = run(None)
    one = run(jax.random.key(1))
    again = run(jax.random.key(1))
    two = run(jax.random.key(2))
    undropped = run(
        jax.random.key(1),
        config.__class__(**{**vars(config), "dropout": 0.0, "attention_dropout": 0.0}),
    )
    for layer in range(4):
        np.testing.assert_array_equal(one[layer], again[layer])
        np.testing.assert_array_equal(plain[layer], undropped[layer])
        assert np.abs(one[layer] - plain[layer]).max() > 0.1
        assert np.abs(one[layer] - two[layer]).max() > 0.1


def test_embedding_dropout_has_its_rate_and_keeps_the_mean(config, batch_of):
    config = config()
    params = init(config, 0).params
    batch = batch_of([[16]] * 40)
    request = FeatureRequest(hidden=frozenset({0}))
    plain = np.asarray(forward(config, params, batch, request).hidden[0])
    dropped = np.asarray(
        forward(config, params, batch, request, dropout_key=jax.random.key(3)).hidden[0]
    )
    kept = dropped != 0
    assert abs(kept.mean() - 0.7) < 0.015
    np.testing.assert_allclose(dropped[kept], plain[kept] / 0.7, rtol=1e-5)


def test_every_dropout_site_and_layer_has_its_own_numbers(config, batch_of, monkeypatch):
    config = config()
    keys = []
    real = jax.random.bernoulli
    monkeypatch.setattr(
        jax.random,
        "bernoulli",
        lambda key, *rest: keys.append(jax.random.key_data(key).tolist()) or real(key, *rest),
    )
    key = jax.random.key(0, impl="rbg")  # which stays a key
    forward(
        config,
        init(config, 0).params,
        batch_of([[16]]),
        FeatureRequest(hidden=frozenset({3})),
        dropout_key=key,
    )
    assert len(keys) == 1 + 3 * config.layers
    assert len({tuple(key) for key in keys}) == len(keys)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_each_rate_works_alone(config, batch_of, rate):
    config = config(**{"dropout": 0.0, "attention_dropout": 0.0, rate: 0.5})
    params = init(config, 0).params
    batch = batch_of([[16]])
    request = FeatureRequest(hidden=frozenset({3}))
    plain, dropped = (
        forward(config, params, batch, request, dropout_key=k).hidden[3]
        for k in (None, jax.random.key(0))
    )
    assert np.abs(plain - dropped).max() > 1e-3


def test_init_is_berts(config):
    model = init(config(vocab_size=5000), 5)
    kinds = {"kernel": [], "embedding": [], "bias": [], "scale": []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(model.params):
        assert leaf.dtype == jnp.float32
        kinds[path[-1].key].append(np.asarray(leaf).ravel())
    assert all(np.all(x == 0) for x in kinds["bias"]) and all(
        np.all(x == 1) for x in kinds["scale"]
    )
    drawn = np.concatenate(kinds["kernel"] + kinds["embedding"])
    # A normal of std 0.02 cut at two standard deviations has a std of 0.8796 x 0.02.
    assert (
        np.abs(drawn).max() <= 0.04
        and abs(drawn.std() / (0.02 * 0.8796) - 1) < 0.01
        and abs(drawn.mean()) < 1e-4
    )


@pytest.mark.parametrize(
    ("width", "std"), [(768, 0.02), (384, 0.02 * 2**0.75), (96, 0.02 * 8**0.75)]
)
def test_init_by_width_is_berts_at_768_and_wider_below(config, width, std):
    made = starts.init_std(config(width=width, init="by_width"))
    assert made == pytest.approx(std, rel=1e-12)
    assert starts.init_std(config(width=width)) == 0.02


@pytest.mark.parametrize(
    "settings", [{"init_std": 0.1}, {"init": "by_width", "init_std": 0.1 / 32**0.75}], ids=str
)
def test_init_std_is_that_of_every_matrix_and_table(config, settings):
    drawn = [
        np.asarray(leaf).ravel()
        for leaf in jax.tree.leaves(init(config(vocab_size=5000, **settings), 5).params)
        if leaf.ndim == 2
    ]
    values = np.concatenate(drawn)
    # A normal of std 0.1 cut at two standard deviations has a std of 0.8796 x 0.1.
    assert np.abs(values).max() <= 0.2 + 1e-7 and values.std() == pytest.approx(0.08796, rel=0.01)


def test_init_is_a_function_of_the_seed(config):
    one, again, two = (init(config(), seed).params for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, again))
    kernels = [p["layers"][n]["ffn"]["up"]["kernel"] for p in (one, two) for n in ("1", "2")]
    assert len({k.tobytes() for k in map(np.asarray, kernels)}) == 4


@pytest.mark.parametrize(
    "changes", [{}, {"norm": "pre"}, {"embedding_norm": False}, {"positions": "rotary"}], ids=str
)
def test_abstract_params_are_the_shapes_of_init_and_cost_nothing(config, changes):
    config = config(**changes)
    params = init(config, 0).params
    assert abstract_params(config) == jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
    )
    assert abstract_params(config) == jax.eval_shape(lambda: init(config, 0).params)
    assert abstract_params(config, mlm=False) == {
        k: v for k, v in abstract_params(config).items() if k != "mlm"
    }
    assert ("final_norm" in params) == (config.norm == "pre")
    assert ("position" in params["embeddings"]) == (config.positions == "learned")
    huge = abstract_params(zoo.get("12x32768"))
    assert sum(count_params(huge)) > 150e9


def test_abstract_params_may_be_changed_by_the_caller(config):
    abstract_params(config())["layers"].clear()
    assert len(abstract_params(config())["layers"]) == 3


def test_a_new_mlm_head_fits_a_model_without_one(config, batch_of):
    config = config()
    batch = batch_of([[16]])
    params = init(config, 0).params
    head = init_mlm_head(config, 7)
    assert jax.tree.map(jnp.shape, head) == jax.tree.map(jnp.shape, params["mlm"])
    assert forward(
        config, {**params, "mlm": head}, batch, FeatureRequest(logits=True)
    ).logits.shape == (1, 4, 57)


def test_counts_parameters():
    sizes = count_params(abstract_params(zoo.get("base")))
    assert sizes.embeddings == (30522 + 512 + 2) * 768
    # BertForMaskedLM of bert-base-uncased has 109 514 298.
    assert sum(sizes) == 109_514_298
    rotary = count_params(abstract_params(dataclasses.replace(zoo.get("base"), positions="rotary")))
    assert rotary == (sizes.embeddings - 512 * 768, sizes.others)


def test_classify_pools_the_first_token(config, batch_of, scrambled):
    config = config()
    batch = batch_of([[16], [5, 4]])
    params = scrambled(init(config, 0).params)
    head = scrambled(init_task_head(config, 3, 0))
    last = np.asarray(
        forward(config, params, batch, FeatureRequest(hidden=frozenset({3}))).hidden[3], np.float64
    )
    pooled = np.tanh(
        last[:, 0] @ np.asarray(head["pooler"]["kernel"]) + np.asarray(head["pooler"]["bias"])
    )
    expected = pooled @ np.asarray(head["output"]["kernel"]) + np.asarray(head["output"]["bias"])
    got = classify(config, params, head, batch)
    assert got.shape == (2, 3) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)
    dropped = [
        classify(config, params, head, batch, dropout_key=jax.random.key(s)) for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert np.abs(dropped[0] - got).max() > 1e-3 and np.abs(dropped[0] - dropped[2]).max() > 1e-3


def test_classify_pools_the_mean_over_valid_tokens(config, batch_of, scrambled):
    config = config()
    batch = batch_of([[16], [5]])
    params = scrambled(init(config, 0).params)
    head = scrambled(init_task_head(config, 3, 0))
    last = np.asarray(
        forward(config, params, batch, FeatureRequest(hidden=frozenset({3}))).hidden[3], np.float64
    )
    mean = np.stack(
        [
            row[valid].mean(axis=0)
            for row, valid in zip(last, np.asarray(batch["valid"]), strict=True)
        ]
    )
    pooled = np.tanh(
        mean @ np.asarray(head["pooler"]["kernel"]) + np.asarray(head["pooler"]["bias"])
    )
    expected = pooled @ np.asarray(head["output"]["kernel"]) + np.asarray(head["output"]["bias"])
    np.testing.assert_allclose(
        classify(config, params, head, batch, pool="mean"), expected, atol=1e-5
    )


def test_classify_drops_out_the_pooled_vector(config, batch_of):
    config = config(dropout=0.5, attention_dropout=0.0)
    params = init(config, 0).params
    batch = batch_of([[16]] * 40)
    head = init_task_head(config, 1, 0)
    # Tanh saturates: pooled is 1
    head["pooler"] = {
        "kernel": jnp.zeros((24, 24)),
        "bias": jnp.full(24, 10.0),
    }
    head["output"] = {"kernel": jnp.ones((24, 1)), "bias": jnp.zeros(1)}
    got = np.asarray(classify(config, params, head, batch, dropout_key=jax.random.key(0)))[:, 0]
    # Each kept entry counts 1 / (1 - 0.5)
    np.testing.assert_allclose(got, 2 * np.round(got / 2), atol=1e-4)
    # A binomial of 24 draws, doubled: 24 and 4.9
    assert abs(got.mean() - 24) < 3 and 3 < got.std() < 7


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
def test_refuses_what_the_model_does_not_have(config, batch_of, request_, message):
    config = config()
    params = {k: v for k, v in init(config, 0).params.items() if k != "mlm"}
    with pytest.raises(InputError, match=message):
        forward(config, params, batch_of([[16]]), request_)


def test_refuses_sequences_longer_than_the_positions(config, batch_of):
    config = config()
    params = init(config, 0).params
    head = init_task_head(config, 2, 0)
    assert forward(
        config, params, batch_of([[20]], length=20), FeatureRequest(hidden=frozenset({1}))
    ).hidden[1].shape == (
        1,
        20,
        24,
    )
    for run in (
        lambda b: forward(config, params, b, FeatureRequest(hidden=frozenset({0}))),
        lambda b: classify(config, params, head, b),
    ):
        with pytest.raises(
            InputError, match="21 tokens, expected at most the model's 20 positions"
        ):
            run(batch_of([[21]], length=21))
