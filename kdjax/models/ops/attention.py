"""Self-attention inside segments, softmax(q kᵀ/√d) v of each head (Vaswani et al. 2017, arXiv
1706.03762).

B batch, L length (M: of the keys), D width, H heads, d head width, D = H d.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.dropout import DropoutKey, Site, dropout, fold, keep_mask
from kdjax.models.ops.heads import merge_heads, split_heads
from kdjax.models.ops.kernels import attention as attention_kernel
from kdjax.models.ops.kernels.tiles import AttentionSettings
from kdjax.models.ops.sharding import BATCH_SHARDED, on_each_device

Attended = tuple[jax.Array, jax.Array | None]
"""The context, and the scores where there are some."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("segments", "allowed"),
    meta_fields=("half_window",),
)
@dataclass(frozen=True)
class AttentionMask:
    """The positions that each position may look at: those of its own segment, itself included.

    Attributes:
        segments: segment numbers, int32 `[B, L]`; 0 is padding.
        allowed: whether a position, the first of a pair, may look at another, bool
            `[B, 1, L, L]`; there may be fewer rows, for the first positions alone.
        half_window: positions that a position sees to either side, as in `allowed`; None: all of
            its segment's.
    """

    segments: jax.Array
    allowed: jax.Array
    half_window: int | None = None


def segment_mask(
    segments: jax.Array, half_window: int | None = None, *, queries: int | None = None
) -> AttentionMask:
    """Build the mask that keeps attention inside segments, and inside a sliding window.

    A segment's tokens stand side by side, so that a distance in the row is one in the text.

    Args:
        segments: int32 `[B, L]`.
        half_window: positions that a position sees to either side (Beltagy et al. 2020, arXiv
            2004.05150); None: all of its segment's.
        queries: positions from the first on that look at others; None: all.

    Example:
        >>> segment_mask(jnp.array([[1, 1, 2]])).allowed[0, 0].astype(int).tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    allowed = segments[:, None, :queries, None] == segments[:, None, None, :]
    if half_window is not None:
        places = jnp.arange(segments.shape[1])
        allowed = allowed & (jnp.abs(places[:queries, None] - places) <= half_window)
    return AttentionMask(segments, allowed, half_window)


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    heads: int,
    *,
    dropout_rate: float = 0.0,
    dropout_key: DropoutKey = None,
    with_scores: bool = False,
    allow_kernels: bool = True,
) -> Attended:
    """Compute dropout(softmax(q kᵀ/√d)) v of each head.

    Args:
        query: `[B, L, D]`, heads side by side; or of the first positions alone.
        key: `[B, L, D]`, heads side by side.
        value: `[B, L, D]`, heads side by side.
        mask: positions that each of the queries' positions may look at.
        heads: H.
        dropout_rate: dropout probability of the attention probabilities.
        dropout_key: the layer's dropout key; None: there is no dropout.
        with_scores: whether the scores are wanted.
        allow_kernels: whether a platform's kernel may compute it.

    Returns:
        The context, of the queries' shape, and the scores q kᵀ/√d `[B, H, L, L]` (None where a
        kernel computes without them), of the type of the queries; the softmax is float32.
    """
    if dropout_key is None:
        dropout_rate = 0.0
    settings = AttentionSettings(heads, dropout_rate, mask.half_window, with_scores)
    length = key.shape[1]
    if query.shape[1] < length:
        # A few rows of the scores are so little work that the reference form is the optimized one.
        return reference(query, key, value, mask, settings, dropout_key)

    # Kernels where they take these arrays
    forms = {}
    width = key.shape[2]
    if allow_kernels and attention_kernel.fits(length, width, heads, scores=with_scores):
        forms["tpu"] = by_tpu_kernel
    is_plain = key.dtype == jnp.bfloat16 and not with_scores and dropout_rate == 0
    if allow_kernels and is_plain and _cudnn_fits(length, width // heads):
        forms["gpu"] = by_cudnn
    form = dispatch.choose(reference, optimized, **forms)
    return form(query, key, value, mask, settings, dropout_key)


def attention_scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Compute the scores q kᵀ/√d of `[B, H, L, d]`, `[B, H, L, L]`."""
    scale = 1 / math.sqrt(query.shape[-1])
    return scale * jnp.einsum("BHLd,BHMd->BHLM", query, key)


def reference(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    settings: AttentionSettings,
    dropout_key: DropoutKey,
) -> Attended:
    """Compute `attention` in plain JAX, differentiated by JAX: the form that is priced."""
    query_in_heads = split_heads(query, settings.heads)  # [B, H, L, d]
    scores = attention_scores(query_in_heads, split_heads(key, settings.heads))  # [B, H, L, M]
    masked_scores = jnp.where(mask.allowed, scores, -jnp.inf).astype(jnp.float32)
    probs = jax.nn.softmax(masked_scores).astype(query.dtype)
    probs = dropout(probs, settings.dropout_rate, dropout_key, site=Site.ATTENTION_PROBS)
    context = jnp.einsum("BHLM,BHMd->BLHd", probs, split_heads(value, settings.heads))
    return context.reshape(query.shape), scores


def optimized(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    settings: AttentionSettings,
    dropout_key: DropoutKey,
) -> Attended:
    """Compute `attention` by `attention_in_heads`, whose backward pass keeps less memory."""
    heads = settings.heads
    shape = (len(query), heads, query.shape[1], query.shape[1])
    keep = keep_mask(shape, settings.dropout_rate, dropout_key, site=Site.ATTENTION_PROBS)
    in_heads = [split_heads(x, heads) for x in (query, key, value)]
    context, scores = attention_in_heads(*in_heads, mask.allowed, keep, settings.dropout_rate)
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

    One array of numbers `[B, H, L, L]` is stored for the backward pass, the softmax's numerators.
    Denominators are divided out of the products' other sides, which are smaller (as Dao et al.
    2022, arXiv 2205.14135).

    Args:
        query: `[B, H, L, d]`.
        key: `[B, H, L, d]`.
        value: `[B, H, L, d]`.
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
    """Compute S = q kᵀ/√d and O = (K ⊙ N) v / (Z (1 − rate)), with N = exp(S − max S) and Z = Σ N
    over the allowed keys, K the probabilities that are kept. Stored are q, k, v, N, Z, O and K."""
    scale = 1 / math.sqrt(query.shape[-1])
    scores = jnp.einsum("BHLd,BHMd->BHLM", query * scale, key)  # [B, H, L, M]
    masked_scores = jnp.where(allowed, scores, -jnp.inf).astype(jnp.float32)  # [B, H, L, M]
    highest = jnp.max(masked_scores, axis=-1, keepdims=True)  # [B, H, L, 1]
    # The softmax's numerators, of which the largest of a row is 1
    numerators = jnp.exp(masked_scores - highest).astype(query.dtype)  # [B, H, L, M]
    total = jnp.sum(numerators, axis=-1, keepdims=True, dtype=jnp.float32)  # [B, H, L, 1]
    dropped = _dropped(numerators, keep)  # [B, H, L, M]
    context = _float32_product("BHLM,BHMd->BHLd", dropped, value) / (total * (1 - rate))
    context = context.astype(query.dtype)  # [B, H, L, d]
    return (context, scores), (query, key, value, numerators, total, context, keep)


def _backward(
    rate: float, residuals: tuple[Any, ...], grads_out: tuple[jax.Array, jax.Array]
) -> tuple[Any, ...]:
    """Compute the gradients by q, k and v, from those by O and S.

    With dP = K ⊙ (dO vᵀ)/(1 − rate): dS = N ⊙ (dP − Σ_d dO ⊙ O)/Z, plus the gradient by S itself;
    dq = dS k/√d, dk = dSᵀ q/√d, dv = (K ⊙ N)ᵀ (dO/Z)/(1 − rate).
    """
    query, key, value, numerators, total, context, keep = residuals
    grad_context, grad_scores_out = grads_out  # [B, H, L, d] and [B, H, L, M]
    scale = 1 / math.sqrt(query.shape[-1])
    # The context's gradient before its division by the softmax's denominator
    grad_sum = (grad_context / total).astype(query.dtype)  # [B, H, L, d]
    dropped = _dropped(numerators, keep)  # [B, H, L, M]
    grad_value = jnp.einsum("BHLM,BHLd->BHMd", dropped, grad_sum) / (1 - rate)  # [B, H, M, d]
    grad_kept = _float32_product("BHLd,BHMd->BHLM", grad_sum, value) / (1 - rate)
    grad_probs = _dropped(grad_kept, keep)  # [B, H, L, M]
    # A row's gradient loses its mean under the probabilities, which the context's gradient along
    # the context is.
    along = (grad_sum * context).astype(jnp.float32)  # [B, H, L, d]
    mean = jnp.sum(along, axis=-1, keepdims=True)  # [B, H, L, 1]
    grad_scores = (numerators * (grad_probs - mean) + grad_scores_out).astype(query.dtype)
    grad_query = scale * jnp.einsum("BHLM,BHMd->BHLd", grad_scores, key)  # [B, H, L, d]
    grad_key = scale * jnp.einsum("BHLM,BHLd->BHMd", grad_scores, query)  # [B, H, M, d]
    return grad_query, grad_key, grad_value, None, None


attention_in_heads.defvjp(_forward, _backward)


def _dropped(x: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Return `x` with 0 where dropout does not keep it."""
    if keep is None:
        return x
    return jnp.where(keep, x, 0)


def _float32_product(formula: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Compute the product that a formula of `einsum` names, as float32."""
    product: jax.Array = jnp.einsum(formula, x, y, preferred_element_type=jnp.float32)
    return product


def by_tpu_kernel(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    settings: AttentionSettings,
    dropout_key: DropoutKey,
) -> Attended:
    """Compute `attention` by a kernel on each TPU."""
    seeds = fold(dropout_key, Site.ATTENTION_PROBS) if settings.dropout_rate > 0 else None
    # The three are slices of one product; given slices, XLA would compute it again.
    joined = jnp.concatenate([query, key, value], axis=-1)
    context, *scores = _by_kernel(joined, mask.segments, seeds, settings)
    if settings.with_scores:
        return context, scores[0]
    return context, None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_kernel(
    joined: jax.Array, segments: jax.Array, seeds: jax.Array | None, settings: AttentionSettings
) -> tuple[jax.Array, ...]:
    """Compute contexts `[B, L, D]` and, where wanted, scores `[B, H, L, L]`, from queries, keys and
    values side by side, `[B, L, 3 D]`."""
    return _kernel_forward(joined, segments, seeds, settings)[0]


def _kernel_forward(
    joined: jax.Array, segments: jax.Array, seeds: jax.Array | None, settings: AttentionSettings
) -> tuple[tuple[jax.Array, ...], tuple[Any, ...]]:
    """Return `_by_kernel`'s results, and its arrays for the backward pass, which computes anew."""
    kernel = functools.partial(attention_kernel.forward, settings=settings)
    inputs = (joined, segments, seeds)
    return on_each_device(kernel, BATCH_SHARDED, BATCH_SHARDED)(*inputs), inputs


def _kernel_backward(
    settings: AttentionSettings, residuals: tuple[Any, ...], grads_out: tuple[jax.Array, ...]
) -> tuple[Any, ...]:
    """Return the gradient by `joined`, `[B, L, 3 D]`, by the formulas of the kernel."""
    kernel = functools.partial(attention_kernel.backward, settings=settings)
    sharded = on_each_device(kernel, BATCH_SHARDED, BATCH_SHARDED)
    return sharded(*residuals, *grads_out), None, None


_by_kernel.defvjp(_kernel_forward, _kernel_backward)


def by_cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    settings: AttentionSettings,
    dropout_key: DropoutKey,
) -> Attended:
    """Compute `attention` by cuDNN on GPUs, without dropout and scores."""
    shape = (*query.shape[:2], settings.heads, -1)
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
