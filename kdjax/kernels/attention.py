"""Self-attention as one TPU kernel: scores and probabilities of a few sequences live in on-chip
memory alone.

For sequences short enough that a head's scores `[L, L]` fit there whole, so there is no running
softmax (unlike Dao et
al. 2022, arXiv 2205.14135, whose backward pass this follows: the probabilities are computed anew).
It reads and writes `[B, L, D]` as the linear layers around it have them; heads are columns. B
batch, L length, D width, H heads, d head width.
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

from kdjax.kernels.counter import is_kept, mix, step
from kdjax.kernels.tiles import ACROSS, ALIKE, DOWN, LANES, apart, dot

LONGEST = 512
"""Tokens of a sequence that the kernel takes."""
MOST_SCORES = 12 * 256**2
"""Entries of a sequence's scores, where they are handed out."""

_BLOCK_BYTES = 1 << 20
"""Of one array that a step of the kernel's grid takes: large enough to hide the step's start, small
enough for VMEM."""


def fits(length: int, width: int, heads: int, *, scores: bool = False) -> bool:
    """Whether the kernel takes such sequences: whole tiles, and no longer than memory allows."""
    tiles = length % LANES == 0 and width % LANES == 0 and (width // heads) % 8 == 0
    return tiles and length <= LONGEST and (not scores or heads * length**2 <= MOST_SCORES)


def forward(
    joined: jax.Array,
    segments: jax.Array,
    heads: int,
    *,
    seeds: jax.Array | None = None,
    rate: float = 0.0,
    scores: bool = False,
    interpret: bool = False,
) -> tuple[jax.Array, ...]:
    """softmax(q kᵀ/√d) v of each head, over the keys of a position's own segment.

    Args:
        joined: queries, keys and values, one after another in `[B, L, 3 D]`.
        segments: int32 `[B, L]`.
        heads: H.
        seeds: int32 `[B, 2]`, of dropout of the probabilities (`kdjax.models.dropout.kept`); None:
            there is none.
        rate: of dropout.
        scores: whether q kᵀ/√d is handed out too.
        interpret: run it as plain JAX, on any device.

    Returns: `[B, L, D]` and, if asked, `[B, H, L, L]`, of the type given. Products are accumulated
        and the softmax is taken in float32.
    """
    batch = joined.shape[0]
    length = joined.shape[1]
    width = joined.shape[2] // 3
    made = [(batch, length, width), *([(batch, heads, length, length)] if scores else [])]
    return _call(_forward, [joined], segments, made, heads, seeds, rate, interpret)


def backward(
    joined: jax.Array,
    segments: jax.Array,
    gradient: jax.Array,
    to_scores: jax.Array | None,
    heads: int,
    *,
    seeds: jax.Array | None = None,
    rate: float = 0.0,
    interpret: bool = False,
) -> jax.Array:
    """The gradient with respect to `joined`, from those with respect to what `forward` returns.

    Args:
        joined, segments, heads, seeds, rate, interpret: as for `forward`.
        gradient: `[B, L, D]`.
        to_scores: `[B, H, L, L]`, or None where scores were not asked for.
    """
    given = [] if to_scores is None else [to_scores]
    return _call(
        _backward,
        [joined, gradient, *given],
        segments,
        [joined.shape],
        heads,
        seeds,
        rate,
        interpret,
    )[0]


def _call(
    body: Callable[..., None],
    arrays: list[jax.Array],
    segments: jax.Array,
    made: list[tuple[int, ...]],
    heads: int,
    seeds: jax.Array | None,
    rate: float,
    interpret: bool,
) -> tuple[jax.Array, ...]:
    """One of the two kernels over blocks of sequences."""
    joined = arrays[0]
    is_forward = body is _forward
    batch, length, width = joined.shape
    itemsize = joined.dtype.itemsize
    block = max(
        n
        for n in range(1, max(1, _BLOCK_BYTES // (length * width * itemsize)) + 1)
        if batch % n == 0
    )

    def sequences(shape: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((block, *shape[1:]), lambda i: (i,) + (0,) * (len(shape) - 1))

    small = [segments[:, None]]
    if seeds is not None:  # spread over a row: what a vector unit takes
        small.append(jnp.broadcast_to(seeds[..., None], (batch, 2, length)))
    moved = sum(math.prod(shape) for shape in (*(x.shape for x in arrays), *made))
    results: list[jax.Array] = pl.pallas_call(
        functools.partial(body, heads=heads, rate=None if seeds is None else rate),
        grid=(batch // block,),
        in_specs=[sequences(x.shape) for x in (*small, *arrays)],
        out_specs=[sequences(shape) for shape in made],
        out_shape=[jax.ShapeDtypeStruct(shape, joined.dtype) for shape in made],
        cost_estimate=pl.CostEstimate(
            flops=(2 if is_forward else 5) * 2 * batch * length * length * width // 3,
            bytes_accessed=moved * itemsize + sum(4 * x.size for x in small),
            transcendentals=batch * heads * length * length,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=f"attention_{'forward' if is_forward else 'backward'}",
    )(*small, *arrays)
    return tuple(results)


def _forward(segments: Any, *rest: Any, heads: int, rate: float | None) -> None:
    seeds, joined, out, *scores = rest if rate is not None else (None, *rest)

    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(segments[n])
        kept = _dropped(seeds, n, joined.shape[1], rate)
        mixed = []
        for h in range(heads):
            query, key, value = _head(joined, n, h, heads)
            raw = _scores(query, key)
            if scores:
                scores[0][n, h] = raw.astype(out.dtype)
            weights = kept(_weights(raw, hidden), h)
            mixed.append(dot(weights.astype(value.dtype), value, ACROSS).astype(out.dtype))
        out[n] = jnp.concatenate(mixed, axis=1)

    jax.lax.fori_loop(0, len(out), sequence, None)


def _backward(segments: Any, *rest: Any, heads: int, rate: float | None) -> None:
    seeds, joined, gradient, *given, out = rest if rate is not None else (None, *rest)
    block, length, width = gradient.shape
    d = width // heads
    scale = math.sqrt(heads / width)

    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(segments[n])
        kept = _dropped(seeds, n, length, rate)
        made: tuple[list[jax.Array], ...] = ([], [], [])
        for h in range(heads):
            query, key, value = _head(joined, n, h, heads)
            to_mixed = gradient[n, :, h * d : (h + 1) * d]
            weights = _weights(_scores(query, key), hidden)
            to_weights = kept(dot(to_mixed, value, ALIKE), h)
            to_scores = weights * (
                to_weights - jnp.sum(weights * to_weights, axis=1, keepdims=True)
            )
            if given:
                to_scores += given[0][n, h].astype(jnp.float32)
            to_scores = (scale * to_scores).astype(query.dtype)
            made[0].append(dot(to_scores, key, ACROSS).astype(out.dtype))
            made[1].append(dot(to_scores, query, DOWN).astype(out.dtype))
            made[2].append(
                dot(kept(weights, h).astype(to_mixed.dtype), to_mixed, DOWN).astype(out.dtype)
            )
        out[n] = jnp.concatenate([one for part in made for one in part], axis=1)

    jax.lax.fori_loop(0, block, sequence, None)


def _dropped(
    seeds: Any, n: jax.Array, length: int, rate: float | None
) -> Callable[[jax.Array, int], jax.Array]:
    """Dropout of what a sequence has for each pair of positions `[L, L]`, by head."""
    if rate is None:
        return lambda x, h: x
    rows, columns = (jax.lax.broadcasted_iota(jnp.int32, (length, length), axis) for axis in (0, 1))
    own = seeds[n]
    count = rows * step(length) + columns * step(1) + own[:1]

    def dropped(x: jax.Array, h: int) -> jax.Array:
        return jnp.where(
            is_kept(mix(count + step(h * length**2), own[1:]), rate), x * (1 / (1 - rate)), 0.0
        )

    return dropped


def _head(joined: Any, n: jax.Array, h: int, heads: int) -> tuple[jax.Array, ...]:
    """Queries, keys and values of a head `[L, d]`."""
    width = joined.shape[2] // 3
    d = width // heads
    return tuple(
        joined[n, :, part * width + h * d : part * width + (h + 1) * d] for part in range(3)
    )


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    return dot(query, key, ALIKE) * (1 / math.sqrt(query.shape[1]))


def _weights(scores: jax.Array, hidden: jax.Array) -> jax.Array:
    """The attention probabilities of a head, float32 `[L, L]`."""
    masked = jnp.where(hidden, -jnp.inf, scores)
    powers = jnp.exp(masked - jnp.max(masked, axis=1, keepdims=True))
    return powers / jnp.sum(powers, axis=1, keepdims=True)
