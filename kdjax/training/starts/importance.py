"""How much a teacher's heads, feed-forward units and channels are used on some text.

The importances are those of Minitron (Muralidharan et al. 2024, arXiv 2407.14679, section 2.2),
which forward passes alone give:

- of a head, the mean over tokens of the Euclidean norm of what it attends to, softmax(q kᵀ/√d) v;
- of a feed-forward unit, the mean over tokens of its activation's absolute value;
- of a channel of the residual stream, the mean over tokens and LayerNorms of the absolute value of
  what the LayerNorms put out.

Letters in shapes: B batch, L length, D width, H heads, d head width, F feed-forward width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.budget.price import check_agreement, count_program_flops
from kdjax.config import ModelConfig
from kdjax.models import FeatureRequest, Model, abstract_params, forward, ops
from kdjax.models.features import Batch

BATCH_SIZE = 32
"""Sequences of a forward pass; the last one is filled up with padding."""
FIELDS = ("tokens", "segments", "positions", "valid")
"""The arrays of a batch that are read."""
PARTS = {
    "attention": {"query", "key", "value", "output"},
    "ffn": {"up", "down"},
    "attention_norm": {"scale", "bias"},
    "ffn_norm": {"scale", "bias"},
}
"""The parameters of a layer that `activations` computes."""

Sums = dict[str, Any]
"""Sums over tokens: `heads` and `units` by layer, `channels`, and `tokens`, their number."""


@dataclass(frozen=True)
class Importance:
    """How much parts of an encoder are used, by its own layers' numbers from 1.

    Attributes:
        heads: layer -> `[H]`.
        units: layer -> `[F]`.
        channels: `[D]`.
    """

    heads: Mapping[int, np.ndarray]
    units: Mapping[int, np.ndarray]
    channels: np.ndarray


@dataclass(frozen=True)
class Activations:
    """What a layer computes on its way that importances are read off.

    Attributes:
        context: `[B, L, D]`, what its heads attend to, side by side.
        units: `[B, L, F]`, after the activation function.
        normed: what its two LayerNorms put out, each `[B, L, D]`.
        output: `[B, L, D]`, the layer's output.
    """

    context: jax.Array
    units: jax.Array
    normed: tuple[jax.Array, jax.Array]
    output: jax.Array


def activations(
    config: ModelConfig,
    layer: Mapping[str, Any],
    x: jax.Array,
    mask: ops.AttentionMask,
    rotation: ops.Rotation | None,
) -> Activations:
    """Compute a layer as the encoder does, without dropout, and keep what it computes on its way.

    Args:
        config: configuration of the model.
        layer: parameters of the layer.
        x: input of the layer, `[B, L, D]`.
        mask: positions that each position may look at.
        rotation: rotation of queries and keys; None where positions are learned.
    """
    attention = layer["attention"]
    ffn = layer["ffn"]

    def norm(name: str, y: jax.Array) -> jax.Array:
        return ops.layer_norm(y, layer[name]["scale"], layer[name]["bias"], config.norm_eps)

    # Attention, up to what its heads attend to
    is_pre = config.norm == "pre"
    attended = norm("attention_norm", x) if is_pre else x
    names = ("query", "key", "value")
    weights = [attention[name]["kernel"] for name in names]
    biases = [attention[name]["bias"] for name in names]
    query, key, value = ops.linear_each(attended, weights, biases)
    if rotation is not None:
        query = ops.rotate(query, rotation, config.heads)
        key = ops.rotate(key, rotation, config.heads)
    context, _ = ops.attention(query, key, value, mask, config.heads)
    x = x + ops.linear(context, attention["output"]["kernel"], attention["output"]["bias"])

    # The feed-forward block, up to its units
    transformed = norm("ffn_norm" if is_pre else "attention_norm", x)
    up = ops.linear(transformed, ffn["up"]["kernel"], ffn["up"]["bias"], True)
    units = ops.gelu(up, config.gelu)
    down = ops.linear(units, ffn["down"]["kernel"], ffn["down"]["bias"])
    if is_pre:
        return Activations(context, units, (attended, transformed), x + down)
    output = norm("ffn_norm", transformed + down)
    return Activations(context, units, (transformed, output), output)


def importance_sums(config: ModelConfig, depth: int, params: Any, batch: Batch) -> Sums:
    """Sum the uses of heads, units and channels over the valid tokens of a batch.

    Args:
        config: configuration of the model.
        depth: number of layers that are run, from the first on.
        params: parameters of the model.
        batch: arrays of `FIELDS`.
    """
    valid = batch["valid"].astype(jnp.float32)

    def over_tokens(uses: jax.Array) -> jax.Array:
        """Sum `[B, L, N]` over valid tokens to `[N]`."""
        return jnp.einsum("bl,bln->n", valid, uses)

    rotation = ops.rotation_of(config, batch["positions"]) if config.positions == "rotary" else None
    mask = ops.segment_mask(batch["segments"])
    x = forward(config, params, batch, FeatureRequest(hidden=frozenset({0}))).hidden[0]
    channels = over_tokens(jnp.abs(x)) if config.embedding_norm else jnp.zeros(config.width)
    heads = {}
    units = {}
    for n in range(1, depth + 1):
        layer = activations(config, params["layers"][str(n)], x, mask, rotation)
        by_head = layer.context.reshape(*x.shape[:2], config.heads, config.head_width)
        heads[n] = over_tokens(jnp.sqrt(jnp.sum(jnp.square(by_head), axis=-1)))
        units[n] = over_tokens(jnp.abs(layer.units))
        for normed in layer.normed:
            channels = channels + over_tokens(jnp.abs(normed))
        x = layer.output
    return {"heads": heads, "units": units, "channels": channels, "tokens": jnp.sum(valid)}


def measured_importance(
    teacher: Model, depth: int, batches: Iterable[Mapping[str, np.ndarray]]
) -> Importance:
    """Measure how much the parts of a teacher's lower layers are used on some text.

    It is computed on one device of this process in float32, so it does not depend on a mesh.

    Args:
        teacher: the teacher.
        depth: number of layers that are run, from the first on.
        batches: batches of `BATCH_SIZE` sequences, padded with empty rows.
    """
    device = jax.local_devices()[0]
    params = {name: part for name, part in teacher.params.items() if name != "mlm"}
    params = jax.device_put(jax.tree.map(np.asarray, params), device)
    run = jax.jit(functools.partial(importance_sums, teacher.config, depth))
    # Over batches in float64: a sum of many float32 loses digits.
    total: Any = None
    for batch in batches:
        fields = {name: batch[name] for name in FIELDS}
        sums = jax.device_get(run(params, jax.device_put(fields, device)))
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    tokens = total.pop("tokens")
    means = jax.tree.map(lambda x: x / tokens, total)
    return Importance(means["heads"], means["units"], means["channels"])


def calibration_flops(config: ModelConfig, depth: int, sequences: int, seq_len: int) -> int:
    """Count the FLOPs of `measured_importance`: its forward passes, as XLA counts one of them.

    Args:
        config: configuration of the teacher.
        depth: number of layers that are run.
        sequences: number of sequences it is measured on.
        seq_len: tokens of a sequence.
    """
    return -(-sequences // BATCH_SIZE) * _pass_flops(config, depth, seq_len)


@functools.cache
def _pass_flops(config: ModelConfig, depth: int, seq_len: int) -> int:
    """Count the FLOPs of one forward pass, checked by the jaxpr count."""
    shape = (BATCH_SIZE, seq_len)
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in FIELDS}
    batch["valid"] = jax.ShapeDtypeStruct(shape, jnp.bool_)
    program = functools.partial(importance_sums, config, depth)
    count = count_program_flops(program, abstract_params(config, mlm=False), batch)
    return check_agreement(count, "a calibration pass")


def has_known_layers(config: ModelConfig) -> bool:
    """Return whether a model's layers are those that `activations` computes."""
    windows = [config.half_window(n) for n in range(1, config.layers + 1)]
    if config.ffn_gated or any(window is not None for window in windows):
        return False
    layer = abstract_params(config, mlm=False)["layers"]["1"]
    if layer.keys() != PARTS.keys():
        return False
    return all(layer[part].keys() == members for part, members in PARTS.items())


def largest(weights: Any, count: int) -> Sequence[int]:
    """Return the indices of the largest weights, ascending; of equal ones the first."""
    ranked = np.argsort(-np.asarray(weights), kind="stable")
    return sorted(int(i) for i in ranked[:count])
