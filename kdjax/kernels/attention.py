"""Self-attention as one TPU kernel: scores and probabilities of a few sequences live in on-chip memory alone.

For sequences short enough that a head's scores `[L, L]` fit there whole, so there is no running softmax (unlike Dao et
al. 2022, arXiv 2205.14135, whose backward pass this follows: the probabilities are computed anew). It reads and writes
`[B, L, D]` as the linear layers around it have them; heads are columns. B batch, L length, D width, H heads, d head
width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
LONGEST = 512
"""Tokens of a sequence that the kernel takes."""

_BLOCK_BYTES = 1 << 20
"""Of one array that a step of the kernel's grid takes: large enough to hide the step's start, small enough for VMEM."""
_ALIKE = (((1,), (1,)), ((), ()))
_DOWN = (((0,), (0,)), ((), ()))
_ACROSS = (((1,), (0,)), ((), ()))


def fits(length: int, width: int, heads: int) -> bool:
    """Whether the kernel takes such sequences: whole tiles, and no longer than `LONGEST`."""
    return length % LANES == 0 and length <= LONGEST and width % LANES == 0 and (width // heads) % 8 == 0


def forward(joined: jax.Array, segments: jax.Array, heads: int, interpret: bool = False) -> jax.Array:
    """softmax(q kᵀ/√d) v of each head, over the keys of a position's own segment.

    Args:
        joined: queries, keys and values, one after another in `[B, L, 3 D]`.
        segments: int32 `[B, L]`.
        heads: H.
        interpret: run it as plain JAX, on any device.

    Returns:
        `[B, L, D]`, of the type given. Products are accumulated, and the softmax is taken, in float32.
    """
    return _call(_forward, (joined,), segments, joined.shape[2] // 3, heads, interpret)


def backward(
    joined: jax.Array, segments: jax.Array, gradient: jax.Array, heads: int, interpret: bool = False
) -> jax.Array:
    """The gradient with respect to `joined`, `[B, L, 3 D]`, from that with respect to the output, `[B, L, D]`."""
    return _call(_backward, (joined, gradient), segments, joined.shape[2], heads, interpret)


def _call(
    body: Callable[..., None],
    arrays: tuple[jax.Array, ...],
    segments: jax.Array,
    width: int,
    heads: int,
    interpret: bool,
) -> jax.Array:
    """One of the two kernels over blocks of sequences; its output is `[B, L, width]`."""
    joined, forward = arrays[0], len(arrays) == 1
    batch, length, joined_width = joined.shape
    itemsize = joined.dtype.itemsize
    most = max(1, _BLOCK_BYTES // (length * joined_width * itemsize))
    block = max(n for n in range(1, most + 1) if batch % n == 0)

    def rows(columns: int) -> pl.BlockSpec:
        return pl.BlockSpec((block, length, columns), lambda i: (i, 0, 0))

    moved = sum(x.size for x in arrays) + batch * length * width
    made: jax.Array = pl.pallas_call(
        functools.partial(body, heads=heads),
        grid=(batch // block,),
        in_specs=[pl.BlockSpec((block, 1, length), lambda i: (i, 0, 0)), *(rows(x.shape[2]) for x in arrays)],
        out_specs=rows(width),
        out_shape=jax.ShapeDtypeStruct((batch, length, width), joined.dtype),
        cost_estimate=pl.CostEstimate(
            flops=(2 if forward else 5) * 2 * batch * length * length * joined_width // 3,
            bytes_accessed=moved * itemsize + 4 * segments.size,
            transcendentals=batch * heads * length * length,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=f"attention_{'forward' if forward else 'backward'}",
    )(segments[:, None, :], *arrays)
    return made


def _forward(segments: Any, joined: Any, out: Any, *, heads: int) -> None:
    block, _, width = out.shape
    d = width // heads

    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(segments[n])
        mixed = []
        for h in range(heads):
            query, key, value = (joined[n, :, part * width + h * d : part * width + (h + 1) * d] for part in range(3))
            weights = _weights(query, key, hidden)
            mixed.append(dot(weights.astype(value.dtype), value, _ACROSS).astype(out.dtype))
        out[n] = jnp.concatenate(mixed, axis=1)

    jax.lax.fori_loop(0, block, sequence, None)


def _backward(segments: Any, joined: Any, gradient: Any, out: Any, *, heads: int) -> None:
    block, _, width = gradient.shape
    d, scale = width // heads, math.sqrt(heads / width)

    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(segments[n])
        made: tuple[list[jax.Array], ...] = ([], [], [])
        for h in range(heads):
            query, key, value = (joined[n, :, part * width + h * d : part * width + (h + 1) * d] for part in range(3))
            to_mixed = gradient[n, :, h * d : (h + 1) * d]
            weights = _weights(query, key, hidden)
            to_weights = dot(to_mixed, value, _ALIKE)
            common = jnp.sum(weights * to_weights, axis=1, keepdims=True)
            to_scores = (scale * weights * (to_weights - common)).astype(query.dtype)
            made[0].append(dot(to_scores, key, _ACROSS).astype(out.dtype))
            made[1].append(dot(to_scores, query, _DOWN).astype(out.dtype))
            made[2].append(dot(weights.astype(to_mixed.dtype), to_mixed, _DOWN).astype(out.dtype))
        out[n] = jnp.concatenate([one for part in made for one in part], axis=1)

    jax.lax.fori_loop(0, block, sequence, None)


def apart(segments: jax.Array) -> jax.Array:
    """Which pairs of positions do not see each other, `[L, L]`, from the segments of a sequence `[1, L]`."""
    of_keys = jnp.broadcast_to(segments, (segments.shape[1],) * 2)
    return of_keys != of_keys.T


def _weights(query: jax.Array, key: jax.Array, apart: jax.Array) -> jax.Array:
    """The attention probabilities of a head, float32 `[L, L]`."""
    scores = jnp.where(apart, -jnp.inf, dot(query, key, _ALIKE) * (1 / math.sqrt(query.shape[1])))
    powers = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return powers / jnp.sum(powers, axis=1, keepdims=True)


def dot(x: jax.Array, y: jax.Array, dimensions: Any) -> jax.Array:
    """A product of two matrices, accumulated in float32."""
    product: jax.Array = jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
    return product
