"""Every way of computing gives the reference forms' features and gradients, and traces what it says
it traces."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from kdjax.config import ComputeConfig, MeshConfig, ModelConfig
from kdjax.models import FeatureRequest, Features, abstract_params, forward
from kdjax.models.ops import dispatch
from kdjax.models.ops.dispatch import trace_reference
from kdjax.parallel.layout import Layout

Equations = list[core.JaxprEqn]
SetPlatform = Callable[[str], None]

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
"""Matmuls of a layer in reference forms: query, key, value, scores, context, output, two of the
feed-forward block."""
OPTIMIZED = 6
"""Matmuls of a layer in optimized forms: query, key and value are one."""


def at(*layers: int) -> frozenset[int]:
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


def also(*values: object) -> Any:
    """Return a combination whose parts others hold already."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def params_of(config: ModelConfig) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32), abstract_params(config)
    )


def packed() -> dict[str, np.ndarray]:
    """Return two packed segments and padding in one row, a full row, and one of mostly padding."""
    segments = np.array([[1] * 4 + [2] * 3 + [0] * 3, [1] * 10, [1] * 2 + [0] * 8], np.int32)
    rng = np.random.default_rng(1)
    return {
        "tokens": (rng.integers(1, 40, segments.shape) * (segments > 0)).astype(np.int32),
        "segments": segments,
        "positions": np.tile(np.arange(LENGTH, dtype=np.int32), (3, 1)),
        "slots": np.array([[1, 5], [0, 9], [1, 0]], np.int32),
    }


def run(
    config: ModelConfig, request: FeatureRequest, compute: ComputeConfig
) -> tuple[Features, Any]:
    """Return features, and the gradient of a loss that weighs every entry of them differently."""

    # A plain sum has the same gradient for every entry, and would not see two of them exchanged.
    def loss(params: Any) -> Any:
        features = forward(
            config, params, packed(), request, dropout_key=jax.random.key(7), compute=compute
        )
        total = 0.0
        for x in jax.tree.leaves(features):
            total += jnp.mean(x * jnp.cos(jnp.arange(x.size)).reshape(x.shape))
        return total, features

    gradient, features = jax.grad(loss, has_aux=True)(params_of(config))
    return features, gradient


@cache
def of_reference(config: ModelConfig, name: str) -> tuple[Features, Any]:
    """Return features and gradient in reference forms: plain JAX, differentiated by JAX."""
    with trace_reference():
        return run(config, SHORT_REQUESTS[name], ComputeConfig())


def distance(tree: Any, reference: Any) -> float:
    """Return the norm of the difference relative to the reference's, over a whole tree."""
    # One norm over the whole tree: small leaves of rounding alone cannot dominate it.
    differences = jax.tree.map(lambda a, b: np.ravel(np.asarray(a) - b), tree, reference)
    flat = [np.ravel(x) for x in jax.tree.leaves(reference)]
    difference = np.concatenate(jax.tree.leaves(differences))
    return float(np.linalg.norm(difference) / np.linalg.norm(np.concatenate(flat)))


def assert_equals_reference(config: ModelConfig, name: str, **compute: Any) -> None:
    """Assert that features and gradient are those in reference forms.

    A unit dropped in the one and kept in the other would differ by far more than rounding.
    """
    got = run(config, SHORT_REQUESTS[name], ComputeConfig(**compute))
    want = of_reference(config, name)
    # Entry by entry first, then as a whole, which is the tighter bound.
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), got, want)
    assert max(map(distance, got, want)) < 2e-6


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SHORT, "a middle layer"),
        (SHORT, "all of the last layer"),
        (SHORT_PRE, "logits only"),
        (SHORT_PRE, "scores of the last layer"),
        also(SHORT, "logits only"),
        also(SHORT, "scores of the last layer"),
        also(SHORT_PRE, "a middle layer"),
        also(SHORT_PRE, "all of the last layer"),
    ],
    ids=lambda value: value.norm if isinstance(value, ModelConfig) else value,
)
def test_optimized_forward_equals_reference_dropout_included(
    config: ModelConfig, name: str
) -> None:
    assert_equals_reference(config, name)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SHORT_FUSIBLE, "scores of the last layer"),
        (replace(SHORT_PRE, dropout=0.0), "a middle layer"),
        also(SHORT_FUSIBLE, "a middle layer"),
    ],
    ids=lambda value: value.norm if isinstance(value, ModelConfig) else value,
)
def test_optimized_forward_with_one_kind_of_dropout_equals_reference(
    config: ModelConfig, name: str
) -> None:
    assert_equals_reference(config, name)


@pytest.mark.parametrize(
    ("config", "remat", "name"),
    [
        (SHORT, "dots", "a middle layer"),
        (SHORT_PRE, "full", "scores of the last layer"),
        also(SHORT, "dots", "logits only"),
        also(SHORT, "dots", "scores of the last layer"),
        also(SHORT, "dots", "all of the last layer"),
        also(SHORT_PRE, "full", "logits only"),
        also(SHORT_PRE, "full", "a middle layer"),
        also(SHORT_PRE, "full", "all of the last layer"),
    ],
    ids=lambda value: value.norm if isinstance(value, ModelConfig) else value,
)
def test_rematerialised_forward_equals_reference_dropout_included(
    config: ModelConfig, remat: str, name: str
) -> None:
    assert_equals_reference(config, name, remat=remat)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SHORT, "all of the last layer"),
        (SHORT_PRE, "logits only"),
        also(SHORT_PRE, "a middle layer"),
        also(SHORT_PRE, "scores of the last layer"),
    ],
    ids=lambda value: value.norm if isinstance(value, ModelConfig) else value,
)
def test_scanned_forward_equals_reference_dropout_included(config: ModelConfig, name: str) -> None:
    assert_equals_reference(config, name, scan=True)


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("a middle layer", {"remat": "dots"}),
        ("a middle layer", {"scan": True, "remat": "full"}),
        also("a middle layer", {}),
        also("all of the last layer", {}),
        also("scores of the last layer", {"scan": True, "remat": "full"}),
    ],
)
def test_forward_with_rotary_positions_equals_reference_dropout_included(
    name: str, compute: dict[str, Any]
) -> None:
    assert_equals_reference(SHORT_ROTARY, name, **compute)


def test_forward_scanned_and_rematerialised_equals_reference() -> None:
    assert_equals_reference(SHORT_FUSIBLE, "scores of the last layer", scan=True, remat="dots")
    assert_equals_reference(SHORT_FUSIBLE_PRE, "logits only", scan=True, remat="full")


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_without_dropout_features_are_far_from_those_with_it(rate: str) -> None:
    name = "all of the last layer"
    undropped = run(replace(SHORT, **{rate: 0.0}), SHORT_REQUESTS[name], ComputeConfig())
    assert distance(undropped, of_reference(SHORT, name)) > 0.01


def assert_near_reference(config: ModelConfig, name: str, **compute: Any) -> None:
    """Assert that features and gradient in bfloat16 are those in float32 but for rounding: a
    bfloat16 has 8 significant bits, so that a rounding errs by up to 2^-8, and dozens of them
    follow one another."""
    got = run(config, SHORT_REQUESTS[name], ComputeConfig(dtype="bfloat16", **compute))
    for part, expected in zip(got, of_reference(config, name), strict=True):
        # Features leave in float32, whatever is computed with.
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(part))
        # The lower bound tells that bfloat16 was used at all.
        assert 2**-10 < distance(part, expected) < 2**-5


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SHORT, "a middle layer"),
        (SHORT_PRE, "scores of the last layer"),
        (SHORT_ROTARY, "a middle layer"),
        *(
            also(config, name)
            for config, name in itertools.product((SHORT, SHORT_PRE, SHORT_ROTARY), SHORT_REQUESTS)
        ),
    ],
    ids=lambda value: (
        f"{value.norm}-{value.positions}" if isinstance(value, ModelConfig) else value
    ),
)
def test_bfloat16_forward_stays_near_float32_and_returns_float32(
    config: ModelConfig, name: str
) -> None:
    assert_near_reference(config, name)


def test_bfloat16_forward_scanned_and_rematerialised_stays_near_float32() -> None:
    assert_near_reference(SHORT_FUSIBLE_PRE, "logits only", scan=True, remat="full")


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yield all equations, those of loops and inner programs too (once)."""
    for eqn in jaxpr.eqns:
        yield eqn
        # Loops, rematerialised layers and custom derivatives hold programs of their own.
        for inner in core.jaxprs_in_params(eqn.params):
            yield from equations(inner)


def trace(
    request: FeatureRequest,
    *,
    config: ModelConfig = FUSIBLE,
    gradient: bool = False,
    dropout: bool = True,
    length: int = LENGTH,
    **compute: Any,
) -> Equations:
    shapes = {
        name: jax.ShapeDtypeStruct((3, length), jnp.int32)
        for name in ("tokens", "segments", "positions")
    }
    shapes["slots"] = jax.ShapeDtypeStruct((3, 2), jnp.int32)

    # The batch is abstract: nothing is computed, only traced.
    def features(params: Any, batch: Any, key: jax.Array | None) -> Features:
        return forward(
            config, params, batch, request, dropout_key=key, compute=ComputeConfig(**compute)
        )

    def loss(*args: Any) -> Any:
        return sum(x.sum() for x in jax.tree.leaves(features(*args)))

    program = jax.make_jaxpr(jax.grad(loss) if gradient else features)
    key = jax.eval_shape(lambda: jax.random.key(0)) if dropout else None
    return list(equations(program(abstract_params(config), shapes, key).jaxpr))


def count(eqns: Equations, name: str) -> int:
    return Counter(eqn.primitive.name for eqn in eqns)[name]


def test_reference_forward_has_no_loop_and_computes_nothing_again() -> None:
    with trace_reference():
        eqns = trace(REQUESTS["a middle layer"], gradient=True)
    assert count(eqns, "scan") == count(eqns, REMAT) == 0
    # Forward and twice as much backward, with two for the MLM head.
    assert count(eqns, "dot_general") == 3 * (5 * LAYER + 2)


def test_optimized_forward_has_no_loop_and_computes_nothing_again() -> None:
    eqns = trace(REQUESTS["a middle layer"], gradient=True)
    assert count(eqns, "scan") == count(eqns, REMAT) == 0
    # As many, and one for the bias of each linear layer, whose gradient is summed by a matmul.
    assert count(eqns, "dot_general") == 3 * (5 * OPTIMIZED + 2) + 5 * 4 + 2


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
def test_layers_of_which_nothing_is_requested_are_one_loop(
    request_: FeatureRequest, layers: int, runs: list[range]
) -> None:
    # Ranges of layers are what the loop is built from, so they are compared first.
    assert request_.ranges(layers) == runs
    scans = [eqn for eqn in trace(request_, scan=True) if eqn.primitive.name == "scan"]
    assert [eqn.params["length"] for eqn in scans] == [len(run) for run in runs if len(run) > 1]
    # Each loop's body is one layer.
    assert all(
        count(equations(eqn.params["jaxpr"].jaxpr), "dot_general") == OPTIMIZED for eqn in scans
    )


def test_every_layer_that_runs_whole_is_rematerialised() -> None:
    # Four of five run whole; the fifth stops at its scores.
    assert count(trace(REQUESTS["scores of the last layer"], remat="full"), REMAT) == 4
    assert count(trace(REQUESTS["a middle layer"], remat="dots"), REMAT) == 5
    # A loop counts once: two loops, and the layer between them.
    assert count(trace(REQUESTS["a middle layer"], remat="full", scan=True), REMAT) == 2 + 1


@pytest.mark.parametrize(("remat", "again"), [("dots", 2), ("full", OPTIMIZED)])
def test_backward_pass_computes_again_what_remat_says(remat: str, again: int) -> None:
    """Rematerialising dots computes again only the scores and the mixing, whose memory grows with
    the square of the length."""
    # What is computed again shows as matmuls that the other program does not have.
    stored = trace(REQUESTS["logits only"], gradient=True)
    recomputed = trace(REQUESTS["logits only"], gradient=True, remat=remat)
    assert count(recomputed, "dot_general") == count(stored, "dot_general") + 5 * again


def test_rematerialised_loops_take_less_memory() -> None:
    """The layers are in a loop, as the CPU's compiler undoes rematerialisation elsewhere: it finds
    the second computation equal to the first."""

    def temporary(remat: str) -> int:
        # Only the last hidden states are wanted, so that nothing else holds memory.
        def loss(params: Any) -> Any:
            compute = ComputeConfig(scan=True, remat=remat)
            request = FeatureRequest(hidden=at(6))
            return forward(config, params, batch, request, compute=compute).hidden[6].sum()

        compiled = jax.jit(jax.grad(loss)).lower(abstract_params(config)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    config = replace(CONFIG, layers=6, max_positions=64)
    batch = {name: jnp.zeros((8, 64), jnp.int32) for name in ("tokens", "segments", "positions")}
    assert temporary("full") < temporary("none") / 2


@pytest.mark.parametrize("options", [{}, {"scan": True}, {"dtype": "bfloat16"}], ids=str)
def test_angles_of_rotary_positions_are_computed_once_in_float32(options: dict[str, Any]) -> None:
    eqns = trace(REQUESTS["a middle layer"], config=ROTARY, dropout=False, gradient=True, **options)
    for name in ("cos", "sin"):
        matching = [eqn.outvars[0].aval for eqn in eqns if eqn.primitive.name == name]
        # One array of angles serves all layers, forward and backward.
        (angles,) = matching
        assert angles.shape == (3, LENGTH, 1, 3)
        assert angles.dtype == jnp.float32


def test_rotary_positions_add_no_matmul() -> None:
    # Heads are turned element by element, in optimized forms and in reference forms alike.
    for learned, rotary in ((PRE, ROTARY), (TILED, replace(TILED, positions="rotary"))):
        with trace_reference():
            without = trace(REQUESTS["logits only"], config=learned, gradient=True)
            rotated = trace(REQUESTS["logits only"], config=rotary, gradient=True)
        assert count(rotated, "dot_general") == count(without, "dot_general")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SetPlatform:
    """Set the platform that programs are traced for."""

    def of(kind: str) -> None:
        monkeypatch.setattr(dispatch, "platform", lambda: kind)

    return of


def kernels(eqns: Equations) -> Counter[str]:
    """Count Pallas kernels by name."""
    return Counter(eqn.params["name"] for eqn in eqns if eqn.primitive.name == "pallas_call")


def square(eqns: Equations) -> int:
    """Count matmuls that give scores or probabilities `[B, H, L, L]`, their gradients too."""
    products = [eqn.outvars[0] for eqn in eqns if eqn.primitive.name == "dot_general"]
    shapes = [product.aval.shape for product in products]
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
def test_attention_on_tpus_is_a_kernel_that_holds_its_scores(
    device: SetPlatform, name: str, layers: int, remat: str, dropout: bool
) -> None:
    device("tpu")
    eqns = trace(
        SHORT_REQUESTS[name], gradient=True, config=TILED, length=128, dropout=dropout, remat=remat
    )
    # Rematerialised layers run their forward kernel again in the backward pass.
    assert kernels(eqns)["attention_forward"] == layers * (1 if remat == "none" else 2)
    assert kernels(eqns)["attention_backward"] == layers
    # Where a layer runs no further than its scores, they are all that is made: three matmuls with
    # their gradients.
    assert square(eqns) == (name == "scores of the last layer")


def test_attention_on_tpus_with_too_many_scores_has_no_kernel(device: SetPlatform) -> None:
    device("tpu")
    config = replace(TILED, heads=4, max_positions=512)
    # A tile of 512 x 512 scores in four heads is beyond what the kernel holds.
    for length, too_long in ((256, 0), (512, 1)):
        eqns = trace(SHORT_REQUESTS["a middle layer"], config=config, length=length, dropout=False)
        assert kernels(eqns)["attention_forward"] == TILED.layers - too_long


def test_layer_norm_on_tpus_of_whole_tiles_is_a_kernel(device: SetPlatform) -> None:
    device("tpu")
    actual = kernels(trace(REQUESTS["logits only"], config=TILED, length=128, gradient=True))
    # Not the head's, of a few slots.
    assert actual["layer_norm_forward"] == actual["layer_norm_backward"] == 1 + 2 * TILED.layers


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
def test_attention_on_tpus_that_does_not_fit_has_no_kernel(
    device: SetPlatform, options: dict[str, Any]
) -> None:
    device("tpu")
    # Tiles of 128 must fit width, length and heads.
    settings = {"config": TILED, "length": 128, "dropout": False, **options}
    eqns = trace(REQUESTS["logits only"], **settings)
    assert kernels(eqns)["attention_forward"] == 0
    # On a CPU nothing is a kernel, even where it would fit.
    device("cpu")
    assert kernels(trace(REQUESTS["logits only"], **settings)) == {}


def test_layer_split_over_devices_has_no_kernel(device: SetPlatform) -> None:
    device("tpu")
    # Heads split over devices cannot be one kernel; parameters split over fsdp are whole when used.
    for mesh, expected in ((MeshConfig(tensor=3), 0), (MeshConfig(fsdp=3), TILED.layers)):
        with Layout.from_config(mesh, jax.devices()[:3]).mesh_context():
            eqns = trace(REQUESTS["logits only"], config=TILED, length=128, dropout=False)
        assert kernels(eqns)["attention_forward"] == expected


def test_reference_forward_has_no_kernel_on_any_platform(device: SetPlatform) -> None:
    device("tpu")
    # Reference forms are priced, and a kernel has no price.
    options = {"config": TILED, "length": 128, "gradient": True, "dropout": False}
    with trace_reference():
        assert kernels(trace(REQUESTS["logits only"], **options)) == {}


def test_attention_on_gpus_in_bfloat16_is_cudnns(
    device: SetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    # The stand-in keeps shapes: there is no GPU here to call cuDNN on.
    def cudnn(
        query: jax.Array, key: jax.Array, value: jax.Array, *, mask: jax.Array, implementation: str
    ) -> jax.Array:
        calls.append((query.shape, mask.shape, implementation))
        return query

    monkeypatch.setattr(jax.nn, "dot_product_attention", cudnn)
    device("gpu")
    options = {"config": TILED, "length": 128, "dropout": False}
    eqns = trace(SHORT_REQUESTS["a middle layer"], dtype="bfloat16", **options)
    # All layers but the one whose scores are asked for.
    assert calls == [((3, 128, 2, 64), (3, 1, 128, 128), "cudnn")] * (TILED.layers - 1)
    assert square(eqns) == 1
    calls.clear()
    trace(SHORT_REQUESTS["a middle layer"], **options)  # float32
    # Each of these is what cuDNN's attention cannot do, or was told not to.
    for other in (
        {"attention": "plain"},
        {"dropout": True},
        {"length": 127},
        {"config": replace(TILED, heads=32)},
    ):
        trace(SHORT_REQUESTS["a middle layer"], dtype="bfloat16", **{**options, **other})
    assert calls == []


@pytest.mark.parametrize("scan", [False, True])
def test_bfloat16_is_for_matmuls_and_not_for_softmax_or_statistics_or_long_sums(scan: bool) -> None:
    options = {"dtype": "bfloat16", "scan": scan}
    # Forward and backward are looked at apart: backward matmuls may widen.
    forwards = trace(REQUESTS["logits only"], **options)
    whole = trace(REQUESTS["logits only"], gradient=True, **options)

    def types(eqns: Equations, name: str) -> set[str]:
        dtypes = set()
        for eqn in eqns:
            if eqn.primitive.name == name:
                dtypes |= {str(v.aval.dtype) for v in eqn.invars}
        return dtypes

    # Matmuls take bfloat16, and exponentials and statistics float32.
    assert types(whole, "dot_general") == {"bfloat16"}
    for name in ("exp", "tanh", "rsqrt"):
        assert types(forwards, name) == {"float32"}
    # A frequent token's gradient is a sum of many, which would stand still in bfloat16.
    tables = [eqn.outvars[0].aval for eqn in whole if eqn.primitive.name == "scatter-add"]
    assert {str(x.dtype) for x in tables if x.shape == (40, 12)} == {"float32"}
