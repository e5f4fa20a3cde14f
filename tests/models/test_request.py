"""What a request traces in reference forms, which are priced: what it needs and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend import core

from kdjax.config import ModelConfig
from kdjax.models import FeatureRequest, Features, abstract_params, forward
from kdjax.models.ops.dispatch import trace_reference

CONFIG = ModelConfig(layers=6, width=8, heads=2, ffn=24, vocab_size=40, max_positions=16)
LAYER = 8
"""Matmuls: query, key, value, scores, context, output, two of the feed-forward block."""


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    for eqn in jaxpr.eqns:
        inner = list(core.jaxprs_in_params(eqn.params))
        if not inner:
            # An equation that holds a program is not counted itself.
            yield eqn
        for program in inner:
            yield from equations(program)


def trace(
    request: FeatureRequest, config: ModelConfig = CONFIG, mlm: bool = True, key: Any = None
) -> list[core.JaxprEqn]:
    shapes = {
        name: jax.ShapeDtypeStruct((2, 10), np.int32)
        for name in ("tokens", "segments", "positions")
    }
    shapes["slots"] = jax.ShapeDtypeStruct((2, 3), np.int32)
    run = jax.make_jaxpr(lambda p, b, k: forward(config, p, b, request, dropout_key=k))
    # Prices are counted from reference forms, so these are traced.
    with trace_reference():
        return list(equations(run(abstract_params(config, mlm=mlm), shapes, key).jaxpr))


def count(request: FeatureRequest, **options: Any) -> Counter[str]:
    return Counter(eqn.primitive.name for eqn in trace(request, **options))


def at(*layers: int) -> frozenset[int]:
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
def test_request_traces_the_matmuls_it_needs(
    request_: FeatureRequest, dots: int, norm: str
) -> None:
    assert count(request_, config=replace(CONFIG, norm=norm))["dot_general"] == dots


def test_empty_request_traces_nothing() -> None:
    # Not even parameters are touched.
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
def test_request_traces_the_softmaxes_norms_and_gelus_it_needs(
    request_: FeatureRequest, softmaxes: int, normalisations: int, gelus: int
) -> None:
    names = count(request_)
    assert names["exp"] == softmaxes
    assert names["rsqrt"] == normalisations
    assert names["erf"] == gelus
    # Without a softmax there is no mask to make.
    if softmaxes == 0:
        assert "eq" not in names  # no segment mask


def test_pre_ln_normalises_at_the_end_only_where_the_end_is_requested() -> None:
    config = replace(CONFIG, norm="pre")
    # Hidden states of the last layer pass the final norm, and scores of it need the norm in front.
    assert count(FeatureRequest(hidden=at(5)), config=config)["rsqrt"] == 1 + 2 * 5
    assert count(FeatureRequest(hidden=at(6)), config=config)["rsqrt"] == 1 + 2 * 6 + 1
    assert count(FeatureRequest(scores=at(6)), config=config)["rsqrt"] == 1 + 2 * 5 + 1


def test_mlm_head_runs_at_the_slots_only() -> None:
    products = [
        eqn.outvars[0].aval.shape
        for eqn in trace(FeatureRequest(logits=True))
        if eqn.primitive.name == "dot_general"
    ]
    of_vocabulary = [shape for shape in products if CONFIG.vocab_size in shape]
    # The output layer multiplies three slots, not ten positions.
    assert of_vocabulary == [(2, 3, CONFIG.vocab_size)]
    assert products.count((2, 3, CONFIG.width)) == 1


def test_mlm_head_that_is_not_requested_costs_nothing() -> None:
    assert count(FeatureRequest(hidden=at(6))) == count(FeatureRequest(hidden=at(6)), mlm=False)


def test_dropout_numbers_are_drawn_where_they_are_used() -> None:
    key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    # Embeddings, and three sites in each layer that runs; a layer that stops at its scores has
    # none.
    assert count(FeatureRequest(hidden=at(2)), key=key)["random_bits"] == 1 + 3 * 2
    assert count(FeatureRequest(scores=at(2)), key=key)["random_bits"] == 1 + 3
    assert count(FeatureRequest(hidden=at(2)))["random_bits"] == 0


def test_parameters_that_a_request_does_not_need_get_no_gradient() -> None:
    config = replace(CONFIG, layers=4)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0.1, 0.1, x.shape).astype(np.float32), abstract_params(config)
    )
    batch = {"tokens": rng.integers(0, 40, (2, 10)), "segments": np.ones((2, 10), np.int32)}
    batch["positions"] = np.tile(np.arange(10), (2, 1))

    def loss(params: Any) -> jax.Array:
        return (forward(config, params, batch, FeatureRequest(scores=at(2))).scores[2] ** 2).sum()

    grads = jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))
    # Scores of layer 2 need layer 1 whole, and query and key of layer 2.
    moved = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, grad in jax.tree_util.tree_leaves_with_path(grads)
        if np.any(grad != 0)
    }
    assert "layers/1/ffn/down/kernel" in moved
    assert not any(name.startswith(("layers/3", "layers/4", "mlm")) for name in moved)
    assert {name for name in moved if name.startswith("layers/2")} == {
        "layers/2/attention/query/kernel",
        "layers/2/attention/query/bias",
        "layers/2/attention/key/kernel",
        "layers/2/attention/key/bias",
    }
