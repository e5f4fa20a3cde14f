"""Self-attention as one TPU kernel: scores and probabilities of a few sequences live in on-chip
memory alone.

For sequences short enough that a head's scores `[L, L]` fit there whole, so there is no running
softmax (unlike Dao et al. 2022, arXiv 2205.14135, whose backward pass this follows: the
probabilities are computed anew). It reads and writes `[B, L, D]` as the linear layers around it
have them; heads are columns.

Letters: B batch, L length, D width, H heads, d = D / H width of a head. In the functions for one
sequence and one head: q, k, v queries, keys and values `[L, d]`; S = q kᵀ/√d scores `[L, L]`;
P = softmax(S) along the keys of a position's own segment; M = 1/(1 − rate) for what dropout keeps
and 0 elsewhere; ⊙ an elementwise product; dX the gradient of the loss by X.
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

from kdjax.models.ops.counter import hash_counter, is_kept, stride
from kdjax.models.ops.kernels.tiles import (
    LANES,
    X_Y,
    X_YT,
    XT_Y,
    AttentionSettings,
    dot,
    hidden_pairs,
    largest_block,
)

MAX_LENGTH = 512
"""Tokens of a sequence that the kernel takes."""
MAX_SIZE = 256 * 1024
"""Length times width of a sequence that the kernel takes: what is above it, as 384 x 768, runs out
of a v5e chip's 16 MiB in the backward pass (by the TPU compiler, with a window and without)."""
MAX_SCORES = 12 * 256**2
"""Entries of a sequence's scores, where they are handed out."""

BLOCK_BYTES = 1 << 20
"""Bytes of one array in a step of the kernel's grid: enough to hide the step's start, and few
enough for VMEM."""


def fits(length: int, width: int, heads: int, *, scores: bool = False) -> bool:
    """Return whether the kernel takes such sequences: whole tiles that fit into on-chip memory.

    Args:
        length: L.
        width: D.
        heads: H.
        scores: whether the scores are returned too.
    """
    if scores and heads * length**2 > MAX_SCORES:
        return False
    return has_whole_tiles(length, width, heads) and length * width <= MAX_SIZE


def has_whole_tiles(length: int, width: int, heads: int) -> bool:
    """Return whether sequences fill whole tiles and are no longer than a kernel takes.

    Args:
        length: positions L of a sequence.
        width: width D of a position's vector, all heads together.
        heads: number H of heads; D / H is the width of each.
    """
    whole_tiles = length % LANES == 0 and width % LANES == 0 and (width // heads) % 8 == 0
    return whole_tiles and length <= MAX_LENGTH


def forward(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None,
    settings: AttentionSettings,
    interpret: bool = False,
) -> tuple[jax.Array, ...]:
    """Compute (M ⊙ softmax(q kᵀ/√d)) v of each head, over the keys of a position's own segment.

    Products are accumulated and the softmax is taken in float32.

    Args:
        joined: queries, keys and values, one after another in `[B, L, 3 D]`.
        segments: segment number of each position, int32 `[B, L]`.
        seeds: seeds of the probabilities' dropout, int32 `[B, 2]`
            (`ops.dropout.keep_mask_by_seeds`); None: there is no dropout.
        settings: heads, dropout, window, and whether q kᵀ/√d is returned too.
        interpret: whether it runs as plain JAX, on any device.

    Returns:
        The contexts `[B, L, D]` and, if wanted, the scores before the softmax `[B, H, L, L]`, both
        of the type of `joined`.
    """
    batch, length, joined_width = joined.shape
    shapes: list[tuple[int, ...]] = [(batch, length, joined_width // 3)]
    if settings.with_scores:
        shapes.append((batch, settings.heads, length, length))
    return _call(_forward, [joined], segments, shapes, settings, seeds, interpret)


def backward(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None,
    grad_context: jax.Array,
    grad_scores: jax.Array | None = None,
    *,
    settings: AttentionSettings,
    interpret: bool = False,
) -> jax.Array:
    """Compute the gradient by `joined` from the gradients by `forward`'s results.

    For each head, with O = (M ⊙ P) v and dP = M ⊙ (dO vᵀ): dS = P ⊙ (dP − Σ_keys P ⊙ dP), plus the
    gradient by returned scores; dq = dS k/√d, dk = dSᵀ q/√d, dv = (M ⊙ P)ᵀ dO.

    Args:
        joined: queries, keys and values, one after another in `[B, L, 3 D]`.
        segments: segment number of each position, int32 `[B, L]`.
        seeds: seeds of the probabilities' dropout that `forward` took, int32 `[B, 2]`; or None.
        grad_context: gradient by the contexts, `[B, L, D]`.
        grad_scores: gradient by the scores, `[B, H, L, L]`, or None where `forward` returned none.
        settings: settings that `forward` took.
        interpret: whether it runs as plain JAX, on any device.

    Returns:
        `[B, L, 3 D]`, of the type of `joined`.
    """
    arrays = [joined, grad_context]
    if grad_scores is not None:
        arrays.append(grad_scores)
    return _call(_backward, arrays, segments, [joined.shape], settings, seeds, interpret)[0]


def _call(
    body: Callable[..., None],
    arrays: list[jax.Array],
    segments: jax.Array,
    shapes: list[tuple[int, ...]],
    settings: AttentionSettings,
    seeds: jax.Array | None,
    interpret: bool,
) -> tuple[jax.Array, ...]:
    """Run one of the two kernels over blocks of sequences.

    Args:
        body: `_forward` or `_backward`.
        arrays: arguments of the type of `joined`, which is the first; each begins with the axis B.
        segments: segment number of each position, int32 `[B, L]`.
        shapes: shapes of the results, each beginning with B.
        settings: heads, dropout and window.
        seeds: seeds of the dropout, int32 `[B, 2]`; None: there is no dropout.
        interpret: whether it runs as plain JAX, on any device.
    """
    joined = arrays[0]
    batch, length, width = joined.shape
    itemsize = joined.dtype.itemsize
    # As many sequences a step as fit in on-chip memory.
    block = largest_block(batch, BLOCK_BYTES // (length * width * itemsize))

    def sequences(shape: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((block, *shape[1:]), lambda i: (i,) + (0,) * (len(shape) - 1))

    small = [segments[:, None]]
    if seeds is not None:
        # Spread over a row: what a vector unit takes.
        small.append(jnp.broadcast_to(seeds[..., None], (batch, 2, length)))
    name = "attention_forward"
    products = 2
    if body is _backward:
        name = "attention_backward"
        products = 5
    large_shapes = [*(x.shape for x in arrays), *shapes]
    elements = sum(math.prod(shape) for shape in large_shapes)
    results: list[jax.Array] = pl.pallas_call(
        functools.partial(body, settings=settings),
        grid=(batch // block,),
        in_specs=[sequences(x.shape) for x in (*small, *arrays)],
        out_specs=[sequences(shape) for shape in shapes],
        out_shape=[jax.ShapeDtypeStruct(shape, joined.dtype) for shape in shapes],
        cost_estimate=pl.CostEstimate(
            flops=products * 2 * batch * length * length * width // 3,
            bytes_accessed=elements * itemsize + sum(4 * x.size for x in small),
            transcendentals=batch * settings.heads * length * length,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=name,
    )(*small, *arrays)
    return tuple(results)


def _forward(segments: Any, *refs: Any, settings: AttentionSettings) -> None:
    """Write (M ⊙ P) v of a block's sequences and, where there is a reference for it, S."""
    seeds, joined, out, *scores_out = _with_seeds(refs, settings.dropout_rate)
    heads = settings.heads

    def sequence(n: jax.Array, _: None) -> None:
        masked = hidden_pairs(segments[n], settings.half_window)
        drop = _dropout(seeds, n, joined.shape[1], settings.dropout_rate)
        contexts = []
        for h in range(heads):
            query, key, value = _head(joined, n, h, heads)
            scores = _scores(query, key)
            # A reference where scores are wanted.
            if scores_out:
                scores_out[0][n, h] = scores.astype(out.dtype)
            probs = drop(_probs(scores, masked), h)
            contexts.append(dot(probs.astype(value.dtype), value, X_Y).astype(out.dtype))
        out[n] = jnp.concatenate(contexts, axis=1)

    jax.lax.fori_loop(0, len(out), sequence, None)


def _backward(segments: Any, *refs: Any, settings: AttentionSettings) -> None:
    """Write dq, dk and dv of a block's sequences, by the formulas of `backward`."""
    seeds, joined, grad_context, *grad_scores_out, out = _with_seeds(refs, settings.dropout_rate)
    block, length, width = grad_context.shape
    heads = settings.heads
    d = width // heads
    scale = math.sqrt(heads / width)

    def sequence(n: jax.Array, _: None) -> None:
        masked = hidden_pairs(segments[n], settings.half_window)
        drop = _dropout(seeds, n, length, settings.dropout_rate)
        grads_query = []
        grads_key = []
        grads_value = []
        for h in range(heads):
            query, key, value = _head(joined, n, h, heads)
            grad = grad_context[n, :, h * d : (h + 1) * d]
            probs = _probs(_scores(query, key), masked)
            grad_probs = drop(dot(grad, value, X_YT), h)
            # The softmax: a row's gradient loses its mean under the probabilities.
            mean = jnp.sum(probs * grad_probs, axis=1, keepdims=True)
            grad_scores = probs * (grad_probs - mean)
            if grad_scores_out:
                grad_scores += grad_scores_out[0][n, h].astype(jnp.float32)
            # To the gradient of q kᵀ.
            grad_scores = (scale * grad_scores).astype(query.dtype)
            grads_query.append(dot(grad_scores, key, X_Y).astype(out.dtype))
            grads_key.append(dot(grad_scores, query, XT_Y).astype(out.dtype))
            dropped = drop(probs, h).astype(grad.dtype)
            grads_value.append(dot(dropped, grad, XT_Y).astype(out.dtype))
        out[n] = jnp.concatenate([*grads_query, *grads_key, *grads_value], axis=1)

    jax.lax.fori_loop(0, block, sequence, None)


def _with_seeds(refs: tuple[Any, ...], rate: float) -> tuple[Any, ...]:
    """Return a kernel's arrays behind the dropout's seeds, None where there is no dropout."""
    if rate == 0:
        return (None, *refs)
    return refs


def _dropout(
    seeds: Any, n: jax.Array, length: int, rate: float
) -> Callable[[jax.Array, int], jax.Array]:
    """Return a function from `[L, L]` and a head's number to M ⊙ `[L, L]`, for one sequence.

    Args:
        seeds: the block's seeds, `[sequences, 2, L]`.
        n: number of the sequence in the block.
        length: L.
        rate: dropout probability; 0: the function returns its argument.
    """
    if rate == 0:
        return lambda x, h: x
    # The counter that `ops.dropout` gives an element of [H, L, L].
    row = jax.lax.broadcasted_iota(jnp.int32, (length, length), 0)
    column = jax.lax.broadcasted_iota(jnp.int32, (length, length), 1)
    sequence_seeds = seeds[n]
    count = row * stride(length) + column * stride(1) + sequence_seeds[:1]

    def drop(x: jax.Array, h: int) -> jax.Array:
        hashed = hash_counter(count + stride(h * length**2), sequence_seeds[1:])
        return jnp.where(is_kept(hashed, rate), x * (1 / (1 - rate)), 0.0)

    return drop


def _head(joined: Any, n: jax.Array, h: int, heads: int) -> list[jax.Array]:
    """Return queries, keys and values of head `h` of sequence `n`, each `[L, d]`."""
    width = joined.shape[2] // 3
    d = width // heads
    starts = [part * width + h * d for part in range(3)]
    return [joined[n, :, start : start + d] for start in starts]


def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Compute S = q kᵀ/√d of a head, float32 `[L, L]`."""
    return dot(query, key, X_YT) * (1 / math.sqrt(query.shape[1]))


def _probs(scores: jax.Array, masked: jax.Array) -> jax.Array:
    """Compute P = softmax(S) along the keys that are not `masked`, float32 `[L, L]`."""
    masked_scores = jnp.where(masked, -jnp.inf, scores)
    numerators = jnp.exp(masked_scores - jnp.max(masked_scores, axis=1, keepdims=True))
    return numerators / jnp.sum(numerators, axis=1, keepdims=True)
