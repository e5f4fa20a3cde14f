"""Students pruned out of teachers: what is kept is the teacher's, what is measured is NumPy's."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import erf

from kdjax.budget.price import count_program_flops
from kdjax.config import ModelConfig, StartConfig
from kdjax.errors import InputError
from kdjax.models import Model, abstract_params, forward, ops
from kdjax.models.features import FeatureRequest
from kdjax.training.phase import BatchShape
from kdjax.training.starts.importance import (
    BATCH_SIZE,
    FIELDS,
    Importance,
    activations,
    calibration_flops,
    importance_sums,
    measured_importance,
)
from kdjax.training.starts.pruning import prune
from kdjax.training.starts.start import check_start, start_flops, start_params
from tests.support import tiny
from tests.training.starts import narrow, teacher

PRUNED = StartConfig("teacher", "lower", cut="prune")
SHAPE = BatchShape(BATCH_SIZE, 12, 3)


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    return tiny.batch(seed, SHAPE)


def hidden(config: ModelConfig, params: Any, layers: int) -> dict[int, np.ndarray]:
    request = FeatureRequest(hidden=frozenset(range(layers + 1)))
    states = jax.jit(lambda p: forward(config, p, batch(), request).hidden)(params)
    return {layer: np.asarray(state) for layer, state in states.items()}


def in_numpy(model: Model, arrays: dict[str, np.ndarray], depth: int) -> Importance:
    """Measure importances of a post-LN model with learned positions, in float64."""
    config = model.config
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model.params)
    valid = arrays["segments"] > 0

    def norm(part: Any, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + config.norm_eps)
        return centred / scale * part["scale"] + part["bias"]

    def linear(part: Any, x: np.ndarray) -> np.ndarray:
        return x @ part["kernel"] + part["bias"]

    tables = params["embeddings"]
    x = tables["word"]["embedding"][arrays["tokens"]] + tables["type"]["embedding"][0]
    x = norm(tables["norm"], x + tables["position"]["embedding"][arrays["positions"]])
    same = arrays["segments"][:, :, None] == arrays["segments"][:, None, :]
    heads = {}
    units = {}
    outputs = [x]
    for n in range(1, depth + 1):
        layer = params["layers"][str(n)]
        contexts = []
        projected = {
            name: linear(layer["attention"][name], x) for name in ("query", "key", "value")
        }
        for head in range(config.heads):
            part = slice(head * config.head_width, (head + 1) * config.head_width)
            query, key, value = (projected[name][..., part] for name in projected)
            scores = query @ key.swapaxes(1, 2) / math.sqrt(config.head_width)
            weights = np.exp(scores - scores.max()) * same
            contexts.append(weights / weights.sum(axis=-1, keepdims=True) @ value)
        heads[n] = np.array([np.linalg.norm(c, axis=-1)[valid].mean() for c in contexts])
        joined = linear(layer["attention"]["output"], np.concatenate(contexts, axis=-1))
        x = norm(layer["attention_norm"], x + joined)
        outputs.append(x)
        up = linear(layer["ffn"]["up"], x)
        activated = up * (1 + erf(up / math.sqrt(2))) / 2
        units[n] = np.abs(activated)[valid].mean(axis=0)
        x = norm(layer["ffn_norm"], x + linear(layer["ffn"]["down"], activated))
        outputs.append(x)
    channels = sum(np.abs(output)[valid].mean(axis=0) for output in outputs)
    return Importance(heads, units, channels)


def test_importances_equal_numpys_over_batches() -> None:
    batches = [batch(0), batch(1)]
    batches[1] = {name: np.concatenate([x[:5], 0 * x[5:]]) for name, x in batches[1].items()}
    measured = measured_importance(teacher(), 3, batches)
    # All tokens count alike, in whichever batch; rows of padding count nothing.
    joined = {name: np.concatenate([batches[0][name], batches[1][name][:5]]) for name in FIELDS}
    expected = in_numpy(teacher(), joined, 3)
    assert set(measured.heads) == {1, 2, 3}
    for n in expected.heads:
        np.testing.assert_allclose(measured.heads[n], expected.heads[n], rtol=1e-4)
        np.testing.assert_allclose(measured.units[n], expected.units[n], rtol=1e-4)
    np.testing.assert_allclose(measured.channels, expected.channels, rtol=1e-4)


def test_layers_of_other_models_are_computed_as_the_encoder_does() -> None:
    model = teacher(norm="pre", positions="rotary", gelu="tanh", embedding_norm=False, layers=2)
    config = model.config
    request = FeatureRequest(hidden=frozenset({0, 1}), value=frozenset({1}))

    def both(params: Any, arrays: Any) -> tuple[Any, Any, Any]:
        features = forward(config, params, arrays, request)
        mask = ops.segment_mask(arrays["segments"])
        rotation = ops.rotation_of(config, arrays["positions"])
        layer = activations(config, params["layers"]["1"], features.hidden[0], mask, rotation)
        return features, layer.output, layer.context

    # Tokens that see themselves alone attend to their own values.
    alone = batch()
    alone["segments"] = np.broadcast_to(np.arange(1, 13, dtype=np.int32), (BATCH_SIZE, 12))
    run = jax.jit(both)
    features, output, _ = run(model.params, batch())
    np.testing.assert_allclose(output, features.hidden[1], atol=1e-5)
    features, _, context = run(model.params, alone)
    values = np.asarray(features.value[1]).swapaxes(1, 2).reshape(context.shape)
    np.testing.assert_allclose(context, values, atol=1e-5)


def test_student_that_keeps_everything_is_the_teacher() -> None:
    student = narrow()
    importance = measured_importance(teacher(), 2, [batch()])
    params = start_params(PRUNED, student, teacher(), 0, importance)
    copied = start_params(StartConfig("teacher", "lower"), student, teacher(), 0)
    assert jax.tree.structure(params) == jax.tree.structure(copied)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(copied), strict=True):
        np.testing.assert_array_equal(a, b)


def test_units_that_are_zero_are_cut_without_a_trace() -> None:
    params = jax.tree.map(np.copy, teacher().params)
    kept = {}
    for n, layer in params["layers"].items():
        # Other units in each layer; what is never active adds nothing.
        zeroed = np.random.default_rng(int(n)).permutation(48)[:16]
        layer["ffn"]["up"]["kernel"][:, zeroed] = 0
        layer["ffn"]["up"]["bias"][zeroed] = 0
        kept[n] = np.setdiff1d(np.arange(48), zeroed)
    model = Model(tiny.TEACHER, params)
    student = narrow(ffn=32)
    importance = measured_importance(model, 4, [batch()])
    pruned = start_params(dataclasses.replace(PRUNED, layers=(2, 4)), student, model, 0, importance)
    for n, source in (("1", "2"), ("2", "4")):
        whole = params["layers"][source]["ffn"]
        part = pruned["layers"][n]["ffn"]
        np.testing.assert_array_equal(part["up"]["kernel"], whole["up"]["kernel"][:, kept[source]])
        np.testing.assert_array_equal(part["down"]["kernel"], whole["down"]["kernel"][kept[source]])
    # The same function: all but the order of sums
    layers = {"1": params["layers"]["2"], "2": params["layers"]["4"]}
    expected = hidden(narrow(), {**params, "layers": layers}, 2)
    actual = hidden(student, pruned, 2)
    for n in expected:
        np.testing.assert_allclose(actual[n], expected[n], atol=1e-5)


def test_zero_heads_and_copied_channels_are_cut_without_a_trace() -> None:
    """Each channel twice leaves means and variances as they are, where only one is read."""
    student = narrow(width=12, heads=1, ffn=20, norm="pre")
    small = tiny.spread(tiny.params(student, 4), factor=4)
    wide = dataclasses.replace(student, width=24, heads=2)

    def doubled(part: Any) -> Any:
        return jax.tree.map(lambda x: np.concatenate([x, x], axis=-1), part)

    def reads_first(kernel: Any) -> np.ndarray:
        return np.concatenate([kernel, np.zeros_like(kernel)])

    def head_zero(part: Any) -> dict[str, np.ndarray]:
        """Put a head of zeros beside the student's, which has the second place."""
        kernel = reads_first(part["kernel"])
        bias = np.asarray(part["bias"])
        return {
            "kernel": np.concatenate([0 * kernel, kernel], axis=1),
            "bias": np.concatenate([0 * bias, bias]),
        }

    layers = {}
    for n, layer in small["layers"].items():
        attention = {
            name: head_zero(layer["attention"][name]) for name in ("query", "key", "value")
        }
        output = doubled(layer["attention"]["output"])
        attention["output"] = {**output, "kernel": np.concatenate([output["kernel"]] * 2)}
        up = layer["ffn"]["up"]
        layers[n] = {
            "attention": attention,
            "attention_norm": doubled(layer["attention_norm"]),
            "ffn": {
                "up": {"kernel": reads_first(up["kernel"]), "bias": up["bias"]},
                "down": doubled(layer["ffn"]["down"]),
            },
            "ffn_norm": doubled(layer["ffn_norm"]),
        }
    params = {
        "embeddings": doubled(small["embeddings"]),
        "layers": layers,
        "final_norm": doubled(small["final_norm"]),
    }

    measured = measured_importance(Model(wide, params), 2, [batch()])
    assert measured.heads[1][0] == 0 < measured.heads[1][1]
    np.testing.assert_allclose(measured.channels[:12], measured.channels[12:], rtol=1e-5)
    first = np.arange(24) < 12
    pruned = prune(
        params, wide, student, dataclasses.replace(measured, channels=first.astype(float))
    )
    expected = {name: part for name, part in small.items() if name != "mlm"}
    assert jax.tree.structure(pruned) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(pruned), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    whole = hidden(wide, params, 2)
    for n, state in hidden(student, pruned, 2).items():
        np.testing.assert_allclose(state, whole[n][..., :12], atol=1e-4)


def test_most_used_parts_are_kept_with_a_head_of_all() -> None:
    model = teacher()
    student = narrow(width=12, heads=1, ffn=10, max_positions=9)
    importance = measured_importance(model, 2, [batch()])
    params = start_params(PRUNED, student, model, 0, importance)
    wanted = abstract_params(student)
    assert jax.tree.structure(params) == jax.tree.structure(wanted)
    assert [x.shape for x in jax.tree.leaves(params)] == [x.shape for x in jax.tree.leaves(wanted)]
    channels = np.sort(np.argsort(-importance.channels)[:12])
    np.testing.assert_array_equal(
        params["embeddings"]["word"]["embedding"],
        model.params["embeddings"]["word"]["embedding"][:, channels],
    )
    dense = model.params["mlm"]["dense"]["kernel"]
    np.testing.assert_array_equal(
        params["mlm"]["dense"]["kernel"], dense[np.ix_(channels, channels)]
    )
    head = int(np.argmax(importance.heads[2]))
    query = model.params["layers"]["2"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(
        params["layers"]["2"]["attention"]["query"]["kernel"],
        query[channels][:, 12 * head : 12 * (head + 1)],
    )


def test_calibration_is_priced_by_its_passes() -> None:
    flops = calibration_flops(tiny.TEACHER, 2, BATCH_SIZE + 1, 12)
    one = calibration_flops(tiny.TEACHER, 2, 1, 12)
    assert flops == 2 * one
    # By hand: a layer's matmuls, 2 FLOPs a multiply-add, and little besides
    tokens = BATCH_SIZE * 12
    width = tiny.TEACHER.width
    ffn = tiny.TEACHER.ffn
    layer = 2 * tokens * (4 * width * width + 2 * width * ffn + 2 * 12 * width)
    assert 2 * layer < one < 2.5 * layer
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch().items()}
    counted = count_program_flops(
        lambda params, arrays: importance_sums(tiny.TEACHER, 2, params, arrays),
        abstract_params(tiny.TEACHER, mlm=False),
        {name: shapes[name] for name in FIELDS},
    )
    assert counted.flops == one
    # Up to the last layer that is kept
    start = dataclasses.replace(PRUNED, layers=(1, 3), calibration_sequences=64)
    assert start_flops(start, narrow(), tiny.TEACHER, 12) == calibration_flops(
        tiny.TEACHER, 3, 64, 12
    )
    assert start_flops(StartConfig("teacher"), narrow(), tiny.TEACHER, 12) == 0


def test_pruned_start_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="the student's head_width is 6, expected its 12"):
        check_start(PRUNED, narrow(width=12), tiny.TEACHER)
    with pytest.raises(InputError, match=r"start\.cut is 'prune' and start\.source 'random'"):
        StartConfig(cut="prune")
    with pytest.raises(InputError, match=r"start\.cut is 'shrink', expected project or prune"):
        StartConfig("teacher", cut="shrink")
    with pytest.raises(InputError, match=r"start\.calibration_sequences is 0"):
        StartConfig("teacher", cut="prune", calibration_sequences=0)
    with pytest.raises(InputError, match="no importances are given"):
        start_params(PRUNED, narrow(ffn=20), teacher(), 0)
