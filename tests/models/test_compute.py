"""Every way of computing gives the reference program's features and gradients, and is the program
it says it is."""

from collections import Counter
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.config import ComputeConfig, MeshConfig, ModelConfig
from kdjax.models import FeatureRequest, abstract_params, forward
from kdjax.models.ops import dispatch
from kdjax.models.ops.dispatch import trace_reference
from kdjax.parallel.layout import Layout

CONFIG = ModelConfig(
    layers=5,
    width=12,
    heads=2,
    ffn=20,
    vocab_size=40,
    max_positions=12,
    dropout=0.3,
    attention_dropout=0.2,
)
FUSIBLE = replace(CONFIG, attention_dropout=0.0)
PRE = replace(CONFIG, norm="pre")
ROTARY = replace(PRE, positions="rotary", rotary_base=20.0)
SHORT = replace(CONFIG, layers=3)
"""Of as many layers as values need: two that may be one loop, and one that may not."""
SHORT_PRE = replace(SHORT, norm="pre")
SHORT_ROTARY = replace(ROTARY, layers=3)
SHORT_FUSIBLE = replace(SHORT, attention_dropout=0.0)
SHORT_FUSIBLE_PRE = replace(SHORT_FUSIBLE, norm="pre")
TILED = ModelConfig(layers=3, width=128, heads=2, ffn=20, vocab_size=40, max_positions=128)
"""Of a size that kernels take."""
LENGTH = 10
REMAT = jax.make_jaxpr(jax.checkpoint(jnp.sin))(1.0).eqns[0].primitive.name
LAYER = 8
"""Matmuls of the reference program: query, key, value, scores, mixing, output, two of the
feed-forward block."""
LEAN = 6
"""Of the lean one: query, key and value are one."""


def at(*layers):
    return frozenset(layers)


REQUESTS = {
    "logits only": FeatureRequest(logits=True),
    "a middle layer": FeatureRequest(
        scores=at(3), value=at(3), hidden=at(0, 3), logits=True, token_logits=True
    ),
    "scores of the last layer": FeatureRequest(scores=at(5)),
    "all of the last layer": FeatureRequest(
        scores=at(5), query=at(5), key=at(2, 5), value=at(5), hidden=at(5)
    ),
}
"""Of five layers."""
SHORT_REQUESTS = {
    "logits only": FeatureRequest(logits=True),
    "a middle layer": FeatureRequest(
        scores=at(1), value=at(1), hidden=at(0, 1), logits=True, token_logits=True
    ),
    "scores of the last layer": FeatureRequest(scores=at(3)),
    "all of the last layer": FeatureRequest(
        scores=at(3), query=at(3), key=at(3), value=at(3), hidden=at(3)
    ),
}
"""Of three: where layers can be a loop, it is the upper two, all, or the lower two."""


def also(*values):
    """A combination whose parts others hold already."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def params_of(config):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32), abstract_params(config)
    )


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
        features = forward(
            config, params, packed(), request, dropout_key=jax.random.key(7), compute=compute
        )
        return sum(
            jnp.mean(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape))
            for x in jax.tree.leaves(features)
        ), features

    gradient, features = jax.grad(loss, has_aux=True)(params_of(config))
    return features, gradient


@cache
def plain(config, name):
    """Of the reference program: plain JAX, differentiated by JAX."""
    with trace_reference():
        return run(config, SHORT_REQUESTS[name], ComputeConfig())


def distance(tree, reference):
    """Norm of the difference relative to the reference's, over a whole tree."""
    pairs = list(zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True))
    norms = [(np.linalg.norm(np.asarray(a) - b), np.linalg.norm(b)) for a, b in pairs]
    return np.linalg.norm([n for n, _ in norms]) / np.linalg.norm([n for _, n in norms])


def same(config, name, **compute):
    """One unit dropped in the one and kept in the other would differ by far more than rounding."""
    got = run(config, SHORT_REQUESTS[name], ComputeConfig(**compute))
    want = plain(config, name)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), got, want)
    assert max(map(distance, got, want)) < 2e-6


@pytest.mark.parametrize(
    ("config", "name"),
    [
        *((SHORT, name) for name in SHORT_REQUESTS),
        (SHORT_PRE, "logits only"),
        (SHORT_PRE, "all of the last layer"),
        also(SHORT_PRE, "a middle layer"),
        also(SHORT_PRE, "scores of the last layer"),
    ],
    ids=lambda value: value.norm if isinstance(value, ModelConfig) else value,
)
def test_lean_it_is_the_plain_program_dropout_included(config, name):
    same(config, name)


@pytest.mark.parametrize(
    "config", [SHORT_FUSIBLE, replace(SHORT_PRE, dropout=0.0)], ids=["post", "pre"]
)
def test_lean_with_one_kind_of_dropout_it_is_the_plain_program(config):
    same(config, "a middle layer")


@pytest.mark.parametrize(
    ("config", "remat", "name"),
    [
        (SHORT, "dots", "logits only"),
        (SHORT, "dots", "scores of the last layer"),
        (SHORT_PRE, "full", "a middle layer"),
        (SHORT_PRE, "full", "all of the last layer"),
        also(SHORT, "dots", "a middle layer"),
        also(SHORT, "dots", "all of the last layer"),
        also(SHORT_PRE, "full", "logits only"),
        also(SHORT_PRE, "full", "scores of the last layer"),
    ],
    ids=lambda value: value.norm if isinstance(value, ModelConfig) else value,
)
def test_rematerialised_it_is_the_plain_program_dropout_included(config, remat, name):
    same(config, name, remat=remat)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SHORT, "all of the last layer"),
        (SHORT_PRE, "a middle layer"),
        (SHORT_PRE, "scores of the last layer"),
    ],
    ids=["post", "pre", "pre"],
)
def test_scanned_it_is_the_plain_program_dropout_included(config, name):
    same(config, name, scan=True)


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("all of the last layer", {}),
        ("a middle layer", {"remat": "dots"}),
        ("scores of the last layer", {"scan": True, "remat": "full"}),
    ],
)
def test_with_rotary_positions_it_is_the_plain_program_dropout_included(name, compute):
    same(SHORT_ROTARY, name, **compute)


def test_all_at_once_it_is_the_plain_program():
    same(SHORT_FUSIBLE, "scores of the last layer", scan=True, remat="dots")
    same(SHORT_FUSIBLE_PRE, "logits only", scan=True, remat="full")


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_these_comparisons_see_dropout(rate):
    undropped = run(replace(SHORT, **{rate: 0.0}), SHORT_REQUESTS["logits only"], ComputeConfig())
    assert distance(undropped, plain(SHORT, "logits only")) > 0.01


def near(config, name, **compute):
    """A bfloat16 has 8 significant bits: a rounding errs by up to 2^-8, and dozens of them follow
    one another."""
    got = run(config, SHORT_REQUESTS[name], ComputeConfig(dtype="bfloat16", **compute))
    for part, expected in zip(got, plain(config, name), strict=True):
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(part))
        assert 2**-10 < distance(part, expected) < 2**-5


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SHORT, "a middle layer"),
        (SHORT, "scores of the last layer"),
        (SHORT_PRE, "a middle layer"),
        (SHORT_ROTARY, "all of the last layer"),
        *(
            also(config, name)
            for config in (SHORT, SHORT_PRE, SHORT_ROTARY)
            for name in SHORT_REQUESTS
        ),
    ],
    ids=lambda value: (
        f"{value.norm}-{value.positions}" if isinstance(value, ModelConfig) else value
    ),
)
def test_bfloat16_stays_near_float32_and_hands_out_float32(config, name):
    near(config, name)


def test_all_at_once_in_bfloat16_stays_near_float32():
    near(SHORT_FUSIBLE_PRE, "logits only", scan=True, remat="full")


def equations(jaxpr):
    """All equations, those of loops and inner programs too (once)."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for x in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(x, "jaxpr", x)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def trace(request, *, config=FUSIBLE, gradient=False, dropout=True, length=LENGTH, **compute):
    shapes = {
        name: jax.ShapeDtypeStruct((3, length), jnp.int32)
        for name in ("tokens", "segments", "positions")
    }
    shapes["slots"] = jax.ShapeDtypeStruct((3, 2), jnp.int32)

    def features(params, batch, key):
        return forward(
            config, params, batch, request, dropout_key=key, compute=ComputeConfig(**compute)
        )

    def loss(*args):
        return sum(x.sum() for x in jax.tree.leaves(features(*args)))

    program = jax.make_jaxpr(jax.grad(loss) if gradient else features)
    key = jax.eval_shape(lambda: jax.random.key(0)) if dropout else None
    return list(equations(program(abstract_params(config), shapes, key).jaxpr))


def count(eqns, name):
    return Counter(eqn.primitive.name for eqn in eqns)[name]


def test_the_plain_program_has_no_loop_and_computes_nothing_again():
    with trace_reference():
        eqns = trace(REQUESTS["a middle layer"], gradient=True)
    assert count(eqns, "scan") == count(eqns, REMAT) == 0
    # Forward and twice as much backward, with two for the MLM head.
    assert count(eqns, "dot_general") == 3 * (5 * LAYER + 2)


def test_neither_does_the_lean_one():
    eqns = trace(REQUESTS["a middle layer"], gradient=True)
    assert count(eqns, "scan") == count(eqns, REMAT) == 0
    # The same, and one for the bias of each linear layer, whose gradient is summed by a matmul.
    assert count(eqns, "dot_general") == 3 * (5 * LEAN + 2) + 5 * 4 + 2


@pytest.mark.parametrize(
    ("request_", "layers", "runs"),
    [
        (REQUESTS["logits only"], 5, [range(1, 6)]),
        (REQUESTS["a middle layer"], 5, [range(1, 3), range(3, 4), range(4, 6)]),
        (REQUESTS["scores of the last layer"], 4, [range(1, 5)]),
        (
            REQUESTS["all of the last layer"],
            5,
            [range(1, 2), range(2, 3), range(3, 5), range(5, 6)],
        ),
        (FeatureRequest(hidden=at(0)), 0, []),
    ],
)
def test_layers_of_which_nothing_is_asked_are_one_loop(request_, layers, runs):
    assert request_.runs(layers) == runs
    scans = [eqn for eqn in trace(request_, scan=True) if eqn.primitive.name == "scan"]
    assert [eqn.params["length"] for eqn in scans] == [len(run) for run in runs if len(run) > 1]
    assert all(count(equations(eqn.params["jaxpr"].jaxpr), "dot_general") == LEAN for eqn in scans)


def test_every_layer_that_runs_whole_is_rematerialised():
    assert count(trace(REQUESTS["scores of the last layer"], remat="full"), REMAT) == 4
    assert count(trace(REQUESTS["a middle layer"], remat="dots"), REMAT) == 5
    assert count(trace(REQUESTS["a middle layer"], remat="full", scan=True), REMAT) == 2 + 1


@pytest.mark.parametrize(("remat", "again"), [("dots", 2), ("full", LEAN)])
def test_the_backward_pass_computes_again_what_remat_says(remat, again):
    """Under dots only the scores and the mixing, whose memory grows with the square of the
    length."""
    stored, recomputed = (
        count(trace(REQUESTS["logits only"], gradient=True, remat=kind), "dot_general")
        for kind in ("none", remat)
    )
    assert recomputed == stored + 5 * again


def test_rematerialised_loops_take_less_memory():
    """In a loop, as the CPU's compiler undoes it elsewhere: it finds the second computation equal
    to the first."""

    def temporary(remat):
        def loss(params):
            compute = ComputeConfig(scan=True, remat=remat)
            return (
                forward(config, params, batch, FeatureRequest(hidden=at(6)), compute=compute)
                .hidden[6]
                .sum()
            )

        compiled = jax.jit(jax.grad(loss)).lower(abstract_params(config)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    config = replace(CONFIG, layers=6, max_positions=64)
    batch = {name: jnp.zeros((8, 64), jnp.int32) for name in ("tokens", "segments", "positions")}
    assert temporary("full") < temporary("none") / 2


@pytest.mark.parametrize("options", [{}, {"scan": True}, {"dtype": "bfloat16"}], ids=str)
def test_angles_of_rotary_positions_are_computed_once_in_float32(options):
    eqns = trace(REQUESTS["a middle layer"], config=ROTARY, dropout=False, gradient=True, **options)
    for name in ("cos", "sin"):
        (angles,) = [eqn.outvars[0].aval for eqn in eqns if eqn.primitive.name == name]
        assert angles.shape == (3, LENGTH, 1, 3) and angles.dtype == jnp.float32


def test_rotary_positions_add_no_matmul():
    for learned, rotary in ((PRE, ROTARY), (TILED, replace(TILED, positions="rotary"))):
        with trace_reference():
            counts = [
                count(trace(REQUESTS["logits only"], config=config, gradient=True), "dot_general")
                for config in (learned, rotary)
            ]
        assert counts[0] == counts[1]


@pytest.fixture
def device(monkeypatch):
    """What is traced is for this kind of device."""

    def of(kind):
        monkeypatch.setattr(dispatch, "platform", lambda: kind)

    return of


def kernels(eqns):
    """Pallas kernels, by name."""
    return Counter(eqn.params["name"] for eqn in eqns if eqn.primitive.name == "pallas_call")


def square(eqns):
    """Matmuls that make scores or probabilities `[B, H, L, L]`, their gradients too."""
    shapes = [
        v.aval.shape for eqn in eqns if eqn.primitive.name == "dot_general" for v in eqn.outvars
    ]
    return sum(shape == (3, 2, shape[-1], shape[-1]) for shape in shapes)


@pytest.mark.parametrize(
    ("name", "layers", "remat", "dropout"),
    [
        ("logits only", 3, "none", False),
        ("logits only", 3, "full", True),
        ("a middle layer", 3, "none", True),
        ("scores of the last layer", 2, "full", False),
        also("logits only", 3, "none", True),
        also("logits only", 3, "full", False),
        also("a middle layer", 3, "none", False),
        also("a middle layer", 3, "full", False),
        also("a middle layer", 3, "full", True),
        also("scores of the last layer", 2, "full", True),
        also("scores of the last layer", 2, "none", False),
        also("scores of the last layer", 2, "none", True),
    ],
)
def test_on_tpus_attention_is_a_kernel_and_its_scores_live_there(
    device, name, layers, remat, dropout
):
    device("tpu")
    eqns = trace(
        SHORT_REQUESTS[name], gradient=True, config=TILED, length=128, dropout=dropout, remat=remat
    )
    assert kernels(eqns)["attention_forward"] == layers * (1 if remat == "none" else 2)
    assert kernels(eqns)["attention_backward"] == layers
    # Where a layer runs no further than its scores, they are all that is made: three matmuls with
    # their gradients.
    assert square(eqns) == (name == "scores of the last layer")


def test_attention_whose_scores_are_too_many_for_a_kernel_is_lean(device):
    device("tpu")
    config = replace(TILED, heads=4, max_positions=512)
    for length, lean in ((256, 0), (512, 1)):
        eqns = trace(SHORT_REQUESTS["a middle layer"], config=config, length=length, dropout=False)
        assert kernels(eqns)["attention_forward"] == TILED.layers - lean


def test_on_tpus_every_layer_norm_of_whole_tiles_is_a_kernel(device):
    device("tpu")
    found = kernels(trace(REQUESTS["logits only"], config=TILED, length=128, gradient=True))
    # Not the head's, of a few slots
    assert found["layer_norm_forward"] == found["layer_norm_backward"] == 1 + 2 * TILED.layers


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "plain"},
        {"length": 120},
        {"config": replace(TILED, width=96)},
        {"config": replace(TILED, heads=32)},
    ],
    ids=str,
)
def test_attention_without_a_kernel_is_lean(device, options):
    device("tpu")
    settings = {"config": TILED, "length": 128, "dropout": False, **options}
    eqns = trace(REQUESTS["logits only"], **settings)
    assert kernels(eqns)["attention_forward"] == 0
    device("cpu")
    assert kernels(trace(REQUESTS["logits only"], **settings)) == {}


def test_a_layer_split_over_devices_has_no_kernel(device):
    device("tpu")
    for mesh, expected in ((MeshConfig(tensor=3), 0), (MeshConfig(fsdp=3), TILED.layers)):
        with Layout.of(mesh, jax.devices()[:3]).mesh_context():
            eqns = trace(REQUESTS["logits only"], config=TILED, length=128, dropout=False)
        assert kernels(eqns)["attention_forward"] == expected


def test_canonical_it_has_no_kernel_whatever_the_device(device):
    device("tpu")
    with trace_reference():
        assert (
            kernels(
                trace(
                    REQUESTS["logits only"], config=TILED, length=128, gradient=True, dropout=False
                )
            )
            == {}
        )


def test_on_gpus_attention_in_bfloat16_is_cudnns(device, monkeypatch):
    calls = []

    def cudnn(query, key, value, *, mask, implementation):
        calls.append((query.shape, mask.shape, implementation))
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", cudnn)
    device("gpu")
    options = {"config": TILED, "length": 128, "dropout": False}
    eqns = trace(SHORT_REQUESTS["a middle layer"], dtype="bfloat16", **options)
    assert calls == [((3, 128, 2, 64), (3, 1, 128, 128), "cudnn")] * (TILED.layers - 1)
    assert square(eqns) == 1
    calls.clear()
    trace(SHORT_REQUESTS["a middle layer"], **options)  # float32
    for other in (
        {"attention": "plain"},
        {"dropout": True},
        {"length": 127},
        {"config": replace(TILED, heads=32)},
    ):
        trace(SHORT_REQUESTS["a middle layer"], dtype="bfloat16", **{**options, **other})
    assert calls == []


@pytest.mark.parametrize("scan", [False, True])
def test_bfloat16_is_for_matmuls_and_not_for_softmax_or_statistics_or_long_sums(scan):
    forwards, whole = (
        trace(REQUESTS["logits only"], dtype="bfloat16", scan=scan, gradient=gradient)
        for gradient in (False, True)
    )

    def types(eqns, name):
        return {str(v.aval.dtype) for eqn in eqns if eqn.primitive.name == name for v in eqn.invars}

    assert types(whole, "dot_general") == {"bfloat16"}
    assert (
        types(forwards, "exp") == types(forwards, "tanh") == types(forwards, "rsqrt") == {"float32"}
    )
    # A frequent token's gradient is a sum of many, which would stand still in bfloat16.
    tables = [eqn.outvars[0].aval for eqn in whole if eqn.primitive.name == "scatter-add"]
    assert {str(x.dtype) for x in tables if x.shape == (40, 12)} == {"float32"}
