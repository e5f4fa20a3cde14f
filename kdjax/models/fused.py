"""What may have a kernel for the device: attention and LayerNorm."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.kernels import attention as attention_kernel
from kdjax.kernels import layer_norm as layer_norm_kernel
from kdjax.kernels.split import EACH, ROWS, on_tpu, platform, split


def attention(
    joined: jax.Array,
    segments: jax.Array,
    heads: int,
    *,
    seeds: jax.Array | None = None,
    rate: float = 0.0,
    scores: bool = False,
) -> tuple[jax.Array, jax.Array | None] | None:
    """softmax(q kᵀ/√d) v of each head, over the keys of a position's own segment.

    Args:
        joined: queries, keys and values, one after another in `[B, L, 3 D]`.
        segments: int32 `[B, L]`.
        heads: H.
        seeds: int32 `[B, 2]`, of dropout of the probabilities; None: there is none.
        rate: of dropout.
        scores: whether q kᵀ/√d is wanted too.

    Returns: `[B, L, D]` and, if wanted, `[B, H, L, L]`; None where there is no such kernel for this
        device, type, shape or mesh.
    """
    length = joined.shape[1]
    width = joined.shape[2] // 3
    if on_tpu() and attention_kernel.fits(length, width, heads, scores=scores):
        mixed, *raw = _attention(joined, segments, seeds, heads, rate, scores)
        return mixed, raw[0] if scores else None
    of_cudnn = not scores and seeds is None and _cudnn_takes(length, width // heads)
    if platform() == "gpu" and joined.dtype == jnp.bfloat16 and of_cudnn:
        return _cudnn(joined, segments, heads), None
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attention(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None,
    heads: int,
    rate: float,
    scores: bool,
) -> tuple[jax.Array, ...]:
    return _attention_forward(joined, segments, seeds, heads, rate, scores)[0]


def _attention_forward(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None,
    heads: int,
    rate: float,
    scores: bool,
) -> tuple[tuple[jax.Array, ...], tuple[Any, ...]]:
    def kernel(
        joined: jax.Array, segments: jax.Array, seeds: jax.Array | None
    ) -> tuple[jax.Array, ...]:
        return attention_kernel.forward(
            joined, segments, heads, seeds=seeds, rate=rate, scores=scores
        )

    return split(kernel, ROWS, ROWS)(joined, segments, seeds), (joined, segments, seeds)


def _attention_backward(
    heads: int, rate: float, scores: bool, kept: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, None, None]:
    def kernel(
        joined: jax.Array,
        segments: jax.Array,
        seeds: jax.Array | None,
        gradient: jax.Array,
        *to_scores: jax.Array,
    ) -> jax.Array:
        back = to_scores[0] if scores else None
        return attention_kernel.backward(
            joined, segments, gradient, back, heads, seeds=seeds, rate=rate
        )

    return split(kernel, ROWS, ROWS)(*kept, *gradients), None, None


_attention.defvjp(_attention_forward, _attention_backward)


def has_layer_norm(x: jax.Array) -> bool:
    """Whether there is a LayerNorm kernel for this device and array `[..., D]`."""
    return on_tpu() and x.ndim == 3 and layer_norm_kernel.fits(x.shape[1], x.shape[2])


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """LayerNorm over the last axis of `[B, L, D]`, with statistics in float32."""

    def rows(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return layer_norm_kernel.forward(x.reshape(-1, x.shape[-1]), scale, bias, epsilon).reshape(
            x.shape
        )

    made: jax.Array = split(rows, (ROWS, EACH, EACH), ROWS)(x, scale, bias)
    return made


def layer_norm_gradients(
    x: jax.Array, scale: jax.Array, gradient: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of `layer_norm` with respect to x, scale and bias."""

    def rows(x: jax.Array, scale: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        flat = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
        to_x, *sums = layer_norm_kernel.backward(next(flat), scale, next(flat), epsilon)
        return (to_x.reshape(x.shape), *sums)

    to_x, to_scale, to_bias = split(rows, (ROWS, EACH, ROWS), (ROWS, ROWS, ROWS))(
        x, scale, gradient
    )
    return to_x, jnp.sum(to_scale, axis=0), jnp.sum(to_bias, axis=0)


def _cudnn_takes(length: int, head_width: int) -> bool:
    """What JAX does not refuse, on GPUs since Ampere: with a mask, no odd length."""
    return length % 2 == 0 and head_width % 8 == 0 and head_width <= 128


def _cudnn(joined: jax.Array, segments: jax.Array, heads: int) -> jax.Array:
    query, key, value = (x.reshape(*x.shape[:2], heads, -1) for x in jnp.split(joined, 3, axis=-1))
    same = segments[:, None, :, None] == segments[:, None, None, :]
    mixed: jax.Array = jax.nn.dot_product_attention(
        query, key, value, mask=same, implementation="cudnn"
    )
    return mixed.reshape(*mixed.shape[:2], -1)
