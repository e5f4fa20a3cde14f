"""The reference program, which is priced, holds the matmuls a request needs and no others."""

from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest

from kdjax.config import ModelConfig
from kdjax.models import FeatureRequest, Features, abstract_params, forward
from kdjax.models.ops.dispatch import trace_reference

CONFIG = ModelConfig(layers=6, width=8, heads=2, ffn=24, vocab_size=40, max_positions=16)
LAYER = 8  # query, key, value, scores, mixing, output, two of the feed-forward block


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        inner = [
            x for v in eqn.params.values() for x in (v if isinstance(v, (tuple, list)) else (v,))
        ]
        subs = [getattr(x, "jaxpr", x) for x in inner if hasattr(getattr(x, "jaxpr", x), "eqns")]
        if subs:
            for sub in subs:
                yield from equations(sub)
        else:
            yield eqn


def trace(request, config=CONFIG, mlm=True, key=None):
    shapes = {
        name: jax.ShapeDtypeStruct((2, 10), np.int32)
        for name in ("tokens", "segments", "positions")
    }
    shapes["slots"] = jax.ShapeDtypeStruct((2, 3), np.int32)
    run = jax.make_jaxpr(lambda p, b, k: forward(config, p, b, request, dropout_key=k))
    with trace_reference():
        return list(equations(run(abstract_params(config, mlm=mlm), shapes, key).jaxpr))


def count(request, **options):
    return Counter(eqn.primitive.name for eqn in trace(request, **options))


def at(*layers):
    return frozenset(layers)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("request_", "dots"),
    [
        (FeatureRequest(hidden=at(0)), 0),
        (FeatureRequest(value=at(1)), 1),
        (FeatureRequest(query=at(1)), 1),
        (FeatureRequest(key=at(1)), 1),
        (FeatureRequest(query=at(1), key=at(1)), 2),
        (FeatureRequest(scores=at(1)), 3),
        (FeatureRequest(scores=at(1), query=at(1), key=at(1)), 3),
        (FeatureRequest(scores=at(1), value=at(1)), 4),
        (FeatureRequest(scores=at(3)), 2 * LAYER + 3),
        (FeatureRequest(value=at(3)), 2 * LAYER + 1),
        (FeatureRequest(query=at(6), key=at(6), value=at(6)), 5 * LAYER + 3),
        (FeatureRequest(scores=at(1, 3), query=at(2)), 2 * LAYER + 3),
        (FeatureRequest(scores=at(2), hidden=at(4)), 4 * LAYER),
        (FeatureRequest(scores=at(4), hidden=at(4)), 4 * LAYER),
        (FeatureRequest(hidden=at(2), value=at(3)), 2 * LAYER + 1),
        *((FeatureRequest(hidden=at(n)), n * LAYER) for n in range(1, 7)),
        (FeatureRequest(hidden=at(*range(7))), 6 * LAYER),
        (FeatureRequest(logits=True), 6 * LAYER + 2),
        (FeatureRequest(logits=True, scores=at(2), hidden=at(0, 6)), 6 * LAYER + 2),
    ],
    ids=str,
)
def test_matmuls(request_, dots, norm):
    assert count(request_, config=replace(CONFIG, norm=norm))["dot_general"] == dots


def test_an_empty_request_traces_nothing():
    assert trace(FeatureRequest()) == []
    assert forward(CONFIG, {}, {}, FeatureRequest()) == Features()


@pytest.mark.parametrize(
    ("request_", "softmaxes", "normalisations", "gelus"),
    [
        (FeatureRequest(hidden=at(0)), 0, 1, 0),
        (FeatureRequest(scores=at(1)), 0, 1, 0),
        (FeatureRequest(value=at(3)), 2, 5, 2),
        (FeatureRequest(hidden=at(3)), 3, 7, 3),
        (FeatureRequest(logits=True), 6, 14, 7),
    ],
    ids=str,
)
def test_nothing_else_is_left_over_either(request_, softmaxes, normalisations, gelus):
    names = count(request_)
    assert names["exp"] == softmaxes
    assert names["rsqrt"] == normalisations
    assert names["erf"] == gelus
    if softmaxes == 0:
        assert "eq" not in names  # no segment mask


def test_pre_ln_normalises_at_the_end_only_where_the_end_is_asked():
    config = replace(CONFIG, norm="pre")
    assert count(FeatureRequest(hidden=at(5)), config=config)["rsqrt"] == 1 + 2 * 5
    assert count(FeatureRequest(hidden=at(6)), config=config)["rsqrt"] == 1 + 2 * 6 + 1
    assert count(FeatureRequest(scores=at(6)), config=config)["rsqrt"] == 1 + 2 * 5 + 1


def test_the_mlm_head_runs_at_the_slots_only():
    decoders = [
        eqn.outvars[0].aval.shape
        for eqn in trace(FeatureRequest(logits=True))
        if eqn.primitive.name == "dot_general" and CONFIG.vocab_size in eqn.outvars[0].aval.shape
    ]
    assert decoders == [(2, 3, CONFIG.vocab_size)]
    dense = [
        eqn.outvars[0].aval.shape
        for eqn in trace(FeatureRequest(logits=True))
        if eqn.primitive.name == "dot_general"
    ]
    assert dense.count((2, 3, CONFIG.width)) == 1


def test_an_mlm_head_nobody_asks_costs_nothing():
    assert count(FeatureRequest(hidden=at(6))) == count(FeatureRequest(hidden=at(6)), mlm=False)


def test_dropout_numbers_are_drawn_where_they_are_used():
    key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    assert count(FeatureRequest(hidden=at(2)), key=key)["random_bits"] == 1 + 3 * 2
    assert count(FeatureRequest(scores=at(2)), key=key)["random_bits"] == 1 + 3
    assert count(FeatureRequest(hidden=at(2)))["random_bits"] == 0


def test_what_is_not_needed_gets_no_gradient():
    config = replace(CONFIG, layers=4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0.1, 0.1, x.shape).astype(np.float32), abstract_params(config)
    )
    batch = {"tokens": rng.integers(0, 40, (2, 10)), "segments": np.ones((2, 10), np.int32)}
    batch["positions"] = np.tile(np.arange(10), (2, 1))

    def loss(params):
        return (forward(config, params, batch, FeatureRequest(scores=at(2))).scores[2] ** 2).sum()

    grads = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))
    moved = {
        "/".join(k.key for k in path)
        for path, g in jax.tree_util.tree_leaves_with_path(grads)
        if np.any(g != 0)
    }
    assert {
        "layers/2/attention/query/kernel",
        "layers/2/attention/key/bias",
        "layers/1/ffn/down/kernel",
    } <= moved
    assert not any(name.startswith(("layers/3", "layers/4", "mlm")) for name in moved)
    assert {name for name in moved if name.startswith("layers/2")} == {
        f"layers/2/attention/{part}/{leaf}"
        for part in ("query", "key")
        for leaf in ("kernel", "bias")
    }
