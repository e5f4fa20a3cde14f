"""A table of vectors, read by index and, as the MLM head's decoder, multiplied with. B batch, L
length, D width, V entries of the table."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.dtypes import cast
from kdjax.models.ops.linear import column_sums, weight_gradient


def embed(table: jax.Array, index: jax.Array) -> jax.Array:
    """Look vectors up; NaN where an index is out of range.

    Args:
        table: `[V, D]`.
        index: int32 `[B, L]`.

    Returns:
        float32 `[B, L, D]`.
    """
    return dispatch.choose(reference, optimized)(table, index)


def tied_logits(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    """Compute logits x Eᵀ + b; the product is in the type of `x`.

    Args:
        x: `[..., D]`.
        table: E, `[V, D]`.
        bias: b, `[V]`.

    Returns:
        float32 `[..., V]`.
    """
    return dispatch.choose(tied_logits_reference, tied_logits_optimized)(x, table, bias)


def reference(table: jax.Array, index: jax.Array) -> jax.Array:
    """Compute `embed` in plain JAX."""
    return jnp.take(table, index, axis=0)


def optimized(table: jax.Array, index: jax.Array) -> jax.Array:
    """Compute `embed` with a row's gradient, a long sum for a frequent token, summed in float32."""
    return _embed(table, index, len(table), table.dtype.name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _embed(table: jax.Array, index: jax.Array, entries: int, dtype: str) -> jax.Array:
    """Compute `embed` of a table of so many entries, of a type."""
    return jnp.take(table, index, axis=0).astype(jnp.float32)


def _embed_forward(
    table: jax.Array, index: jax.Array, entries: int, dtype: str
) -> tuple[jax.Array, jax.Array]:
    """Look vectors up, `[B, L, D]`; the indices are stored."""
    return _embed(table, index, entries, dtype), index


def _embed_backward(
    entries: int, dtype: str, index: jax.Array, grad_out: jax.Array
) -> tuple[Any, ...]:
    """Compute the table's gradient `[V, D]`: of each row the sum of dy over the places it was read
    at."""
    # What is out of range adds nothing.
    zeros = jnp.zeros((entries, grad_out.shape[-1]), jnp.float32)
    return zeros.at[index].add(grad_out, mode="drop").astype(dtype), None


_embed.defvjp(_embed_forward, _embed_backward)


def tied_logits_reference(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    """Compute `tied_logits` in plain JAX."""
    product = jnp.einsum("...D,VD->...V", x, table.astype(x.dtype))
    return product.astype(jnp.float32) + bias


def tied_logits_optimized(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    """Compute `tied_logits` with gradients in the type of `x`, the bias's summed in float32."""
    return _tied_logits(x, cast(table, x.dtype), bias)


@jax.custom_vjp
def _tied_logits(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    """Compute `tied_logits` of a table of the type of `x`."""
    return _tied_logits_forward(x, table, bias)[0]


def _tied_logits_forward(
    x: jax.Array, table: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute y = x Eᵀ + b `[..., V]`; x and E are stored."""
    return tied_logits_reference(x, table, bias), (x, table)


def _tied_logits_backward(residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[Any, ...]:
    """Compute dx = dy E `[..., D]`, dE = dyᵀ x `[V, D]` and db, the sum of dy's rows, `[V]`."""
    x, table = residuals
    # The products are in the type of x, as forward.
    grad_logits = grad_out.astype(x.dtype)
    return grad_logits @ table, weight_gradient(grad_logits, x), column_sums(grad_logits)


_tied_logits.defvjp(_tied_logits_forward, _tied_logits_backward)
