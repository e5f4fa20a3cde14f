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

from kdjax.kernels.tiles import ACROSS, ALIKE, DOWN, LANES, apart, dot

LONGEST = 512
"""Tokens of a sequence that the kernel takes."""
MOST_SCORES = 12 * 256**2
"""Entries of a sequence's scores, where they are handed out."""

_BLOCK_BYTES = 1 << 20
"""Of one array that a step of the kernel's grid takes: large enough to hide the step's start, small enough for VMEM."""


def fits(length: int, width: int, heads: int, *, scores: bool = False) -> bool:
    """Whether the kernel takes such sequences: whole tiles, and no longer than memory allows."""
    tiles = length % LANES == 0 and width % LANES == 0 and (width // heads) % 8 == 0
    return tiles and length <= LONGEST and (not scores or heads * length**2 <= MOST_SCORES)


def forward(
    joined: jax.Array, segments: jax.Array, heads: int, *, scores: bool = False, interpret: bool = False
) -> tuple[jax.Array, ...]:
    """softmax(q kᵀ/√d) v of each head, over the keys of a position's own segment.

    Args:
        joined: queries, keys and values, one after another in `[B, L, 3 D]`.
        segments: int32 `[B, L]`.
        heads: H.
        scores: whether q kᵀ/√d is handed out too.
        interpret: run it as plain JAX, on any device.

    Returns:
        `[B, L, D]` and, if asked, `[B, H, L, L]`, of the type given. Products are accumulated and the softmax is taken
        in float32.
    """
    batch, length, width = joined.shape[0], joined.shape[1], joined.shape[2] // 3
    made = [(batch, length, width), *([(batch, heads, length, length)] if scores else [])]
    return _call(_forward, [joined], segments, made, heads, interpret)


def backward(
    joined: jax.Array,
    segments: jax.Array,
    gradient: jax.Array,
    to_scores: jax.Array | None,
    heads: int,
    *,
    interpret: bool = False,
) -> jax.Array:
    """The gradient with respect to `joined`, from those with respect to what `forward` returns.

    Args:
        joined, segments, heads, interpret: as for `forward`.
        gradient: `[B, L, D]`.
        to_scores: `[B, H, L, L]`, or None where scores were not asked for.
    """
    given = [] if to_scores is None else [to_scores]
    return _call(_backward, [joined, gradient, *given], segments, [joined.shape], heads, interpret)[0]


def _call(
    body: Callable[..., None],
    arrays: list[jax.Array],
    segments: jax.Array,
    made: list[tuple[int, ...]],
    heads: int,
    interpret: bool,
) -> tuple[jax.Array, ...]:
    """One of the two kernels over blocks of sequences."""
    joined, is_forward = arrays[0], body is _forward
    batch, length, width = joined.shape
    itemsize = joined.dtype.itemsize
    block = max(n for n in range(1, max(1, _BLOCK_BYTES // (length * width * itemsize)) + 1) if batch % n == 0)

    def sequences(shape: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((block, *shape[1:]), lambda i: (i,) + (0,) * (len(shape) - 1))

    moved = sum(math.prod(shape) for shape in (*(x.shape for x in arrays), *made))
    results: list[jax.Array] = pl.pallas_call(
        functools.partial(body, heads=heads),
        grid=(batch // block,),
        in_specs=[sequences(x.shape) for x in (segments[:, None], *arrays)],
        out_specs=[sequences(shape) for shape in made],
        out_shape=[jax.ShapeDtypeStruct(shape, joined.dtype) for shape in made],
        cost_estimate=pl.CostEstimate(
            flops=(2 if is_forward else 5) * 2 * batch * length * length * width // 3,
            bytes_accessed=moved * itemsize + 4 * segments.size,
            transcendentals=batch * heads * length * length,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=f"attention_{'forward' if is_forward else 'backward'}",
    )(segments[:, None], *arrays)
    return tuple(results)


def _forward(segments: Any, joined: Any, out: Any, *scores: Any, heads: int) -> None:
    block = len(out)

    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(segments[n])
        mixed = []
        for h in range(heads):
            query, key, value = _head(joined, n, h, heads)
            raw = _scores(query, key)
            if scores:
                scores[0][n, h] = raw.astype(out.dtype)
            mixed.append(dot(_weights(raw, hidden).astype(value.dtype), value, ACROSS).astype(out.dtype))
        out[n] = jnp.concatenate(mixed, axis=1)

    jax.lax.fori_loop(0, block, sequence, None)


def _backward(segments: Any, joined: Any, gradient: Any, *rest: Any, heads: int) -> None:
    *given, out = rest
    block, _, width = gradient.shape
    d, scale = width // heads, math.sqrt(heads / width)

    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(segments[n])
        made: tuple[list[jax.Array], ...] = ([], [], [])
        for h in range(heads):
            query, key, value = _head(joined, n, h, heads)
            to_mixed = gradient[n, :, h * d : (h + 1) * d]
            weights = _weights(_scores(query, key), hidden)
            to_weights = dot(to_mixed, value, ALIKE)
            to_scores = weights * (to_weights - jnp.sum(weights * to_weights, axis=1, keepdims=True))
            if given:
                to_scores += given[0][n, h].astype(jnp.float32)
            to_scores = (scale * to_scores).astype(query.dtype)
            made[0].append(dot(to_scores, key, ACROSS).astype(out.dtype))
            made[1].append(dot(to_scores, query, DOWN).astype(out.dtype))
            made[2].append(dot(weights.astype(to_mixed.dtype), to_mixed, DOWN).astype(out.dtype))
        out[n] = jnp.concatenate([one for part in made for one in part], axis=1)

    jax.lax.fori_loop(0, block, sequence, None)


def _head(joined: Any, n: jax.Array, h: int, heads: int) -> tuple[jax.Array, ...]:
    """Queries, keys and values of a head `[L, d]`."""
    width = joined.shape[2] // 3
    d = width // heads
    return tuple(joined[n, :, part * width + h * d : part * width + (h + 1) * d] for part in range(3))


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    return dot(query, key, ALIKE) * (1 / math.sqrt(query.shape[1]))


def _weights(scores: jax.Array, hidden: jax.Array) -> jax.Array:
    """The attention probabilities of a head, float32 `[L, L]`."""
    masked = jnp.where(hidden, -jnp.inf, scores)
    powers = jnp.exp(masked - jnp.max(masked, axis=1, keepdims=True))
    return powers / jnp.sum(powers, axis=1, keepdims=True)
