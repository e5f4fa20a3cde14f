"""Every way of computing gives the plain program's features and gradients, and is the program it says it is."""

from collections import Counter
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ComputeConfig, ModelConfig
from kdjax.errors import InputError
from kdjax.models import Request, abstract_params, forward

CONFIG = ModelConfig(
    layers=5, width=12, heads=2, ffn=20, vocab_size=40, positions=12, dropout=0.3, attention_dropout=0.2
)
FUSIBLE = replace(CONFIG, attention_dropout=0.0)
PRE, FUSIBLE_PRE = replace(CONFIG, norm="pre"), replace(FUSIBLE, norm="pre")
LENGTH = 10
REMAT = jax.make_jaxpr(jax.checkpoint(jnp.sin))(1.0).eqns[0].primitive.name
LAYER = 8  # matmuls: query, key, value, scores, mixing, output, two of the feed-forward block


def at(*layers):
    return frozenset(layers)


REQUESTS = {
    "logits only": Request(logits=True),
    "a middle layer": Request(scores=at(3), value=at(3), hidden=at(0, 3), logits=True, token_logits=True),
    "scores of the last layer": Request(scores=at(5)),
    "all of the last layer": Request(scores=at(5), query=at(5), key=at(2, 5), value=at(5), hidden=at(5)),
}


def params_of(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32), abstract_params(config))


def packed():
    """Two packed segments and padding in one row, a full row, and a row that is mostly padding."""
    segments = np.array([[1] * 4 + [2] * 3 + [0] * 3, [1] * 10, [1] * 2 + [0] * 8], np.int32)
    rng = np.random.default_rng(1)
    return {
        "tokens": (rng.integers(1, 40, segments.shape) * (segments > 0)).astype(np.int32),
        "segments": segments,
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (3, 1)),
        "slots": np.array([[1, 5], [0, 9], [1, 0]], np.int32),
    }


def run(config, request, compute):
    """Features, and the gradient of a loss that weighs every entry of them differently."""

    def loss(params):
        features = forward(config, params, packed(), request, dropout_key=jax.random.key(7), compute=compute)
        return sum(
            jnp.mean(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)) for x in jax.tree.leaves(features)
        ), features

    gradient, features = jax.grad(loss, has_aux=True)(params_of(config))
    return features, gradient


@cache
def plain(config, name):
    return run(config, REQUESTS[name], ComputeConfig())


def distance(tree, reference):
    """Norm of the difference relative to the reference's, over a whole tree."""
    pairs = list(zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True))
    norms = [(np.linalg.norm(np.asarray(a) - b), np.linalg.norm(b)) for a, b in pairs]
    return np.linalg.norm([n for n, _ in norms]) / np.linalg.norm([n for _, n in norms])


def same(config, name, **compute):
    """One unit dropped in the one and kept in the other would differ by far more than rounding."""
    got, want = run(config, REQUESTS[name], ComputeConfig(**compute)), plain(config, name)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), got, want)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(("config", "remat"), [(CONFIG, "dots"), (PRE, "full")], ids=["post-dots", "pre-full"])
def test_rematerialised_it_is_the_plain_program_dropout_included(config, name, remat):
    same(config, name, remat=remat)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("config", [FUSIBLE, FUSIBLE_PRE], ids=["post", "pre"])
def test_fused_it_is_the_plain_program(config, name):
    same(config, name, attention="fused")


@pytest.mark.parametrize(
    ("config", "name"),
    [(CONFIG, "all of the last layer"), (PRE, "a middle layer"), (PRE, "scores of the last layer")],
    ids=["post", "pre", "pre"],
)
def test_scanned_it_is_the_plain_program_dropout_included(config, name):
    same(config, name, scan=True)


def test_all_at_once_it_is_the_plain_program():
    same(FUSIBLE, "logits only", scan=True, remat="dots", attention="fused")
    same(FUSIBLE_PRE, "scores of the last layer", scan=True, remat="full", attention="fused")


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_these_comparisons_see_dropout(rate):
    undropped = run(replace(CONFIG, **{rate: 0.0}), REQUESTS["logits only"], ComputeConfig())
    assert distance(undropped, plain(CONFIG, "logits only")) > 0.01


def near(config, name, **compute):
    """A bfloat16 has 8 significant bits: a rounding errs by up to 2^-9, and dozens of them follow one another."""
    got = run(config, REQUESTS[name], ComputeConfig(dtype="bfloat16", **compute))
    for part, reference in zip(got, plain(config, name), strict=True):
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(part))
        assert 2**-10 < distance(part, reference) < 2**-5


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("config", [CONFIG, PRE], ids=["post", "pre"])
def test_bfloat16_stays_near_float32_and_hands_out_float32(config, name):
    near(config, name)


def test_all_at_once_in_bfloat16_stays_near_float32():
    near(FUSIBLE_PRE, "logits only", scan=True, remat="full", attention="fused")


def equations(jaxpr):
    """All equations, those of loops and inner programs too (once)."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for x in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(x, "jaxpr", x)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def trace(request, *, config=FUSIBLE, gradient=False, **compute):
    def features(params, key):
        return forward(config, params, packed(), request, dropout_key=key, compute=ComputeConfig(**compute))

    def loss(params, key):
        return sum(x.sum() for x in jax.tree.leaves(features(params, key)))

    program = jax.make_jaxpr(jax.grad(loss) if gradient else features)
    return list(equations(program(abstract_params(config), jax.eval_shape(lambda: jax.random.key(0))).jaxpr))


def count(eqns, name):
    return Counter(eqn.primitive.name for eqn in eqns)[name]


def test_the_plain_program_has_no_loop_and_computes_nothing_again():
    eqns = trace(REQUESTS["a middle layer"], gradient=True)
    assert count(eqns, "scan") == count(eqns, REMAT) == 0
    # Forward and twice as much backward, with two for the MLM head.
    assert count(eqns, "dot_general") == 3 * (5 * LAYER + 2)


@pytest.mark.parametrize(
    ("request_", "layers", "runs"),
    [
        (REQUESTS["logits only"], 5, [range(1, 6)]),
        (REQUESTS["a middle layer"], 5, [range(1, 3), range(3, 4), range(4, 6)]),
        (REQUESTS["scores of the last layer"], 4, [range(1, 5)]),
        (REQUESTS["all of the last layer"], 5, [range(1, 2), range(2, 3), range(3, 5), range(5, 6)]),
        (Request(hidden=at(0)), 0, []),
    ],
)
def test_layers_of_which_nothing_is_asked_are_one_loop(request_, layers, runs):
    assert request_.runs(layers) == runs
    scans = [eqn for eqn in trace(request_, scan=True) if eqn.primitive.name == "scan"]
    assert [eqn.params["length"] for eqn in scans] == [len(run) for run in runs if len(run) > 1]
    assert all(count(equations(eqn.params["jaxpr"].jaxpr), "dot_general") == LAYER for eqn in scans)


def test_every_layer_that_runs_whole_is_rematerialised():
    assert count(trace(REQUESTS["scores of the last layer"], remat="full"), REMAT) == 4
    assert count(trace(REQUESTS["a middle layer"], remat="dots"), REMAT) == 5
    assert count(trace(REQUESTS["a middle layer"], remat="full", scan=True), REMAT) == 2 + 1


@pytest.mark.parametrize(("remat", "again"), [("dots", 2), ("full", LAYER)])
def test_the_backward_pass_computes_again_what_remat_says(remat, again):
    """Under dots only the scores and the mixing, whose memory grows with the square of the length."""
    eqns = trace(REQUESTS["logits only"], gradient=True, remat=remat)
    assert count(eqns, "dot_general") == 3 * (5 * LAYER + 2) + 5 * again


def test_rematerialised_loops_take_less_memory():
    """In a loop, as the CPU's compiler undoes it elsewhere: it finds the second computation equal to the first."""

    def temporary(remat):
        def loss(params):
            compute = ComputeConfig(scan=True, remat=remat)
            return forward(config, params, batch, Request(hidden=at(6)), compute=compute).hidden[6].sum()

        compiled = jax.jit(jax.grad(loss)).lower(abstract_params(config)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    config = replace(CONFIG, layers=6, positions=64)
    batch = {name: jnp.zeros((8, 64), jnp.int32) for name in ("tokens", "segments", "positions")}
    assert temporary("full") < temporary("none") / 2


def test_fused_attention_has_no_scores_but_those_asked(monkeypatch):
    seen = []

    def kernel(query, key, value, *, mask, scale):
        seen.append((query.shape, key.shape, value.shape, mask.shape, scale))
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    eqns = trace(REQUESTS["a middle layer"], attention="fused")
    heads = (3, LENGTH, 2, 6)
    assert seen == [(heads, heads, heads, (3, 1, LENGTH, LENGTH), pytest.approx(6**-0.5))] * 4
    square = [eqn for eqn in eqns if any(v.aval.shape == (3, 2, LENGTH, LENGTH) for v in eqn.outvars)]
    assert count(square, "dot_general") == count(eqns, "exp") == 1  # layer 3's


def test_fused_attention_is_refused_with_attention_dropout():
    message = "model: attention_dropout is 0.2, expected 0 where attention is 'fused'"
    with pytest.raises(InputError, match=message):
        trace(REQUESTS["logits only"], config=CONFIG, attention="fused")
    without_key = forward(
        CONFIG, params_of(CONFIG), packed(), Request(hidden=at(1)), compute=ComputeConfig(attention="fused")
    )
    assert np.isfinite(without_key.hidden[1]).all()  # as a teacher runs


@pytest.mark.parametrize("scan", [False, True])
def test_bfloat16_is_for_matmuls_and_not_for_softmax_or_statistics_or_long_sums(scan):
    forwards, whole = (
        trace(REQUESTS["logits only"], dtype="bfloat16", scan=scan, gradient=gradient) for gradient in (False, True)
    )

    def types(eqns, name):
        return {str(v.aval.dtype) for eqn in eqns if eqn.primitive.name == name for v in eqn.invars}

    assert types(whole, "dot_general") == types(forwards, "erf") == {"bfloat16"}
    assert types(forwards, "exp") == types(forwards, "rsqrt") == {"float32"}
    # A frequent token's gradient is a sum of many, which would stand still in bfloat16.
    tables = [eqn.outvars[0].aval for eqn in whole if eqn.primitive.name == "scatter-add"]
    assert {str(x.dtype) for x in tables if x.shape == (40, 12)} == {"float32"}
