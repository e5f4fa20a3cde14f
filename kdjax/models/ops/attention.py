"""Self-attention inside segments, softmax(q kᵀ/√d) v of each head (Vaswani et al. 2017, arXiv
1706.03762).

B batch, L length (M: of the keys), D width, H heads, d head width, D = H d.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.dropout import Key, Site, dropout, fold, keep_mask
from kdjax.models.ops.heads import merge_heads, split_heads
from kdjax.models.ops.kernels import attention as attention_kernel
from kdjax.models.ops.sharding import BATCH_SHARDED, on_each_device

Attended = tuple[jax.Array, jax.Array | None]
"""The context, and the scores where there are some."""


class AttentionMask(NamedTuple):
    """The positions that each position may look at: those of its own segment, itself included.

    Attributes:
        segments: int32 `[B, L]`.
        allowed: the same for pairs of positions, bool `[B, 1, L, L]`.
    """

    segments: jax.Array
    allowed: jax.Array


def segment_mask(segments: jax.Array) -> AttentionMask:
    """Build the mask that keeps attention inside segments, int32 `[B, L]`."""
    return AttentionMask(segments, segments[:, None, :, None] == segments[:, None, None, :])


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    *,
    heads: int,
    rate: float = 0.0,
    dropout_key: Key = None,
    with_scores: bool = False,
    kernels: bool = True,
) -> Attended:
    """Compute dropout(softmax(q kᵀ/√d)) v of each head.

    Args:
        query, key, value: `[B, L, D]`, heads side by side.
        mask: positions that each position may look at.
        heads: H.
        rate: dropout probability of the attention probabilities.
        dropout_key: the layer's dropout key; None: there is no dropout.
        with_scores: whether the scores are wanted.
        kernels: whether a platform's kernel may compute it.

    Returns:
        The context `[B, L, D]` and the scores q kᵀ/√d `[B, H, L, L]` (None where a kernel computes
        without them), of the type of the queries; the softmax is float32.
    """
    # Kernels where they take these arrays.
    forms = {}
    length = query.shape[1]
    width = query.shape[2]
    if kernels and attention_kernel.fits(length, width, heads, scores=with_scores):
        forms["tpu"] = by_tpu_kernel
    drops_out = dropout_key is not None and rate > 0
    plain = query.dtype == jnp.bfloat16 and not with_scores and not drops_out
    if kernels and plain and _cudnn_fits(length, width // heads):
        forms["gpu"] = by_cudnn
    form = dispatch.choose(reference, optimized, **forms)
    return form(query, key, value, mask, heads, rate, dropout_key, with_scores=with_scores)


def attention_scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Compute the scores q kᵀ/√d of `[B, H, L, d]`, `[B, H, L, L]`."""
    scale = 1 / math.sqrt(query.shape[-1])
    return scale * jnp.einsum("BHLd,BHMd->BHLM", query, key)


def first_token_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    *,
    heads: int,
    rate: float = 0.0,
    dropout_key: Key = None,
) -> jax.Array:
    """Compute what `attention` gives for each sequence's first token alone, `[B, 1, D]`.

    A row of the scores is so little work that the reference form is the optimized one, too.

    Args:
        query: that token's query, `[B, 1, D]`.
        key, value: `[B, L, D]`, heads side by side.
        segments: int32 `[B, L]`.
        heads: H.
        rate: dropout probability of the attention probabilities.
        dropout_key: the layer's dropout key; None: there is no dropout.
    """
    mask = AttentionMask(segments, segments[:, None, :1, None] == segments[:, None, None, :])
    context, _ = reference(query, key, value, mask, heads, rate, dropout_key, with_scores=False)
    return context


def reference(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    heads: int,
    rate: float,
    dropout_key: Key,
    *,
    with_scores: bool,
) -> Attended:
    """Compute `attention` in plain JAX, differentiated by JAX: the form that is priced.

    Args:
        query, key, value, mask, heads, rate, dropout_key: as in `attention`.
        with_scores: of no effect: the scores are returned always.
    """
    scores = attention_scores(split_heads(query, heads), split_heads(key, heads))
    masked_scores = jnp.where(mask.allowed, scores, -jnp.inf).astype(jnp.float32)
    probs = jax.nn.softmax(masked_scores).astype(query.dtype)
    probs = dropout(probs, rate, dropout_key, site=Site.ATTENTION_PROBS)
    context = jnp.einsum("BHLM,BHMd->BLHd", probs, split_heads(value, heads))
    return context.reshape(query.shape), scores


def optimized(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    heads: int,
    rate: float,
    dropout_key: Key,
    *,
    with_scores: bool,
) -> Attended:
    """Compute `attention` by `attention_in_heads`, whose backward pass keeps less memory.

    Args:
        query, key, value, mask, heads, rate, dropout_key: as in `attention`.
        with_scores: of no effect: the scores are returned always.
    """
    shape = (len(query), heads, query.shape[1], query.shape[1])
    keep = keep_mask(shape, rate, dropout_key, site=Site.ATTENTION_PROBS)
    if keep is None:
        rate = 0.0
    in_heads = [split_heads(x, heads) for x in (query, key, value)]
    context, scores = attention_in_heads(*in_heads, mask.allowed, keep, rate)
    return merge_heads(context), scores


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attention_in_heads(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array,
    keep: jax.Array | None,
    rate: float,
) -> tuple[jax.Array, jax.Array]:
    """Compute context and scores of each head.

    Of arrays `[B, H, L, L]` the backward pass keeps the softmax's numerators alone. Denominators
    are divided out of the products' other sides, which are smaller (as Dao et al. 2022, arXiv
    2205.14135).

    Args:
        query, key, value: `[B, H, L, d]`.
        allowed: bool `[B, 1, L, L]`, which positions each may look at.
        keep: bool `[B, H, L, L]`, the probabilities that dropout keeps; None: all.
        rate: dropout probability, 0 where all are kept.

    Returns:
        `[B, H, L, d]` and `[B, H, L, L]`, of the queries' type.
    """
    return _forward(query, key, value, allowed, keep, rate)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array,
    keep: jax.Array | None,
    rate: float,
) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
    scale = 1 / math.sqrt(query.shape[-1])
    scores = jnp.einsum("BHLd,BHMd->BHLM", query * scale, key)
    masked_scores = jnp.where(allowed, scores, -jnp.inf).astype(jnp.float32)
    highest = jnp.max(masked_scores, axis=-1, keepdims=True)
    # The softmax's numerators, of which the largest of a row is 1.
    numerators = jnp.exp(masked_scores - highest).astype(query.dtype)
    total = jnp.sum(numerators, axis=-1, keepdims=True, dtype=jnp.float32)
    dropped = _dropped(numerators, keep)
    context = _float32_product("BHLM,BHMd->BHLd", dropped, value) / (total * (1 - rate))
    context = context.astype(query.dtype)
    return (context, scores), (query, key, value, numerators, total, context, keep)


def _backward(
    rate: float, residuals: tuple[Any, ...], grads_out: tuple[jax.Array, jax.Array]
) -> tuple[Any, ...]:
    query, key, value, numerators, total, context, keep = residuals
    grad_context, grad_scores_out = grads_out
    scale = 1 / math.sqrt(query.shape[-1])
    # The gradient of the context before its division by the softmax's denominator.
    grad_sum = (grad_context / total).astype(query.dtype)
    grad_values = jnp.einsum("BHLM,BHLd->BHMd", _dropped(numerators, keep), grad_sum) / (1 - rate)
    grad_probs = _float32_product("BHLd,BHMd->BHLM", grad_sum, value) / (1 - rate)
    grad_probs = _dropped(grad_probs, keep)
    # Of the softmax: a row's gradient loses its mean under the probabilities, which is that of the
    # context along the context.
    mean = jnp.sum((grad_sum * context).astype(jnp.float32), axis=-1, keepdims=True)
    grad_scores = (numerators * (grad_probs - mean) + grad_scores_out).astype(query.dtype)
    # Of the scores q kᵀ/√d.
    grad_query = scale * jnp.einsum("BHLM,BHMd->BHLd", grad_scores, key)
    grad_key = scale * jnp.einsum("BHLM,BHLd->BHMd", grad_scores, query)
    return grad_query, grad_key, grad_values, None, None


attention_in_heads.defvjp(_forward, _backward)


def _dropped(x: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Return `x` with 0 where dropout does not keep it."""
    if keep is None:
        return x
    return jnp.where(keep, x, 0)


def _float32_product(formula: str, x: jax.Array, y: jax.Array) -> jax.Array:
    product: jax.Array = jnp.einsum(formula, x, y, preferred_element_type=jnp.float32)
    return product


def by_tpu_kernel(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    heads: int,
    rate: float,
    dropout_key: Key,
    *,
    with_scores: bool,
) -> Attended:
    """Compute `attention` by a kernel on each TPU."""
    seeds = None
    if rate > 0:
        seeds = fold(dropout_key, Site.ATTENTION_PROBS)
    # Of parts of one product XLA makes that product again.
    joined = jnp.concatenate([query, key, value], axis=-1)
    context, *scores = _by_kernel(joined, mask.segments, seeds, heads, rate, with_scores)
    return context, scores[0] if with_scores else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _by_kernel(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None,
    heads: int,
    rate: float,
    with_scores: bool,
) -> tuple[jax.Array, ...]:
    return _kernel_forward(joined, segments, seeds, heads, rate, with_scores)[0]


def _kernel_forward(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None,
    heads: int,
    rate: float,
    with_scores: bool,
) -> tuple[tuple[jax.Array, ...], tuple[Any, ...]]:
    def kernel(
        joined: jax.Array, segments: jax.Array, seeds: jax.Array | None
    ) -> tuple[jax.Array, ...]:
        return attention_kernel.forward(
            joined, segments, heads, seeds=seeds, rate=rate, scores=with_scores
        )

    inputs = (joined, segments, seeds)
    return on_each_device(kernel, BATCH_SHARDED, BATCH_SHARDED)(*inputs), inputs


def _kernel_backward(
    heads: int,
    rate: float,
    with_scores: bool,
    residuals: tuple[Any, ...],
    grads_out: tuple[jax.Array, ...],
) -> tuple[Any, ...]:
    def kernel(
        joined: jax.Array,
        segments: jax.Array,
        seeds: jax.Array | None,
        *grads_out: jax.Array,
    ) -> jax.Array:
        return attention_kernel.backward(
            joined, segments, *grads_out, heads=heads, seeds=seeds, rate=rate
        )

    sharded = on_each_device(kernel, BATCH_SHARDED, BATCH_SHARDED)
    return sharded(*residuals, *grads_out), None, None


_by_kernel.defvjp(_kernel_forward, _kernel_backward)


def by_cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    heads: int,
    rate: float,
    dropout_key: Key,
    *,
    with_scores: bool,
) -> Attended:
    """Compute `attention` by cuDNN on GPUs, without dropout and scores."""
    shape = (*query.shape[:2], heads, -1)
    context = jax.nn.dot_product_attention(
        query.reshape(shape),
        key.reshape(shape),
        value.reshape(shape),
        mask=mask.allowed,
        implementation="cudnn",
    )
    return context.reshape(query.shape), None


def _cudnn_fits(length: int, head_width: int) -> bool:
    """Return whether JAX has cuDNN take such sequences, on GPUs since Ampere.

    With a mask no odd length.
    """
    return length % 2 == 0 and head_width % 8 == 0 and head_width <= 128
