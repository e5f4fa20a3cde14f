"""The parts of a layer as they run: each with a backward pass of its own, which moves less memory
than JAX's.

What they compute is what `kdjax.models.encoder` writes plainly; they keep what is dear to compute
again and nothing else, join passes over large arrays, and sum gradients of biases in float32. B
batch, L length, D width, H heads, d head width, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.kernels.split import on_tpu, platform
from kdjax.models import fused

Residuals = tuple[Any, ...]


def linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, activated: bool = False) -> jax.Array:
    """x W + b: `[..., D]` with `[D, E]` and `[E]` to `[..., E]`, in the type of `x`.

    Args:
        x, kernel, bias: the arrays.
        activated: whether an elementwise function follows. On TPUs its gradient's column sums then
            cost next to nothing beside the matmul that the gradient comes from.
    """
    return _linear(x, cast(kernel, x.dtype), bias, activated)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _linear(x: jax.Array, kernel: jax.Array, bias: jax.Array, activated: bool) -> jax.Array:
    return _linear_forward(x, kernel, bias, activated)[0]


def _linear_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, activated: bool
) -> tuple[jax.Array, Residuals]:
    return x @ kernel + bias.astype(x.dtype), (x, kernel)  # in plain sight of `remat: dots`


def _linear_backward(activated: bool, kept: Residuals, gradient: jax.Array) -> Residuals:
    x, kernel = kept
    joined = activated and on_tpu()
    to_bias = (
        jnp.sum(gradient, axis=_rows(x), dtype=jnp.float32) if joined else _column_sums(gradient)
    )
    return gradient @ kernel.T, _over_rows(x, gradient), to_bias


_linear.defvjp(_linear_forward, _linear_backward)


def look_up(table: jax.Array, index: jax.Array) -> jax.Array:
    """The rows of `[V, D]` at `[B, L]`, float32 `[B, L, D]`; NaN where an index is out of range.

    A row's gradient, a long sum for a frequent token, is summed in float32.
    """
    return _look_up(table, index, len(table), table.dtype.name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _look_up(table: jax.Array, index: jax.Array, entries: int, dtype: str) -> jax.Array:
    return jnp.take(table, index, axis=0).astype(jnp.float32)


def _look_up_forward(
    table: jax.Array, index: jax.Array, entries: int, dtype: str
) -> tuple[jax.Array, jax.Array]:
    return _look_up(table, index, entries, dtype), index


def _look_up_backward(entries: int, dtype: str, index: jax.Array, gradient: jax.Array) -> Residuals:
    whole = (
        jnp.zeros((entries, gradient.shape[-1]), jnp.float32).at[index].add(gradient, mode="drop")
    )
    return whole.astype(dtype), None


_look_up.defvjp(_look_up_forward, _look_up_backward)


def decode(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    """Logits x Eᵀ + b: `[..., D]` with `[V, D]` and `[V]` to float32 `[..., V]`; the product is in
    the type of `x`."""
    return _decode(x, cast(table, x.dtype), bias)


@jax.custom_vjp
def _decode(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
    return _decode_forward(x, table, bias)[0]


def _decode_forward(x: jax.Array, table: jax.Array, bias: jax.Array) -> tuple[jax.Array, Residuals]:
    return jnp.einsum("...D,VD->...V", x, table).astype(jnp.float32) + bias, (x, table)


def _decode_backward(kept: Residuals, gradient: jax.Array) -> Residuals:
    x, table = kept
    narrow = gradient.astype(x.dtype)
    return narrow @ table, _over_rows(narrow, x), _column_sums(narrow)


_decode.defvjp(_decode_forward, _decode_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """LayerNorm over the last axis, in the type of `x`; statistics are float32, the variance that
    of the centred x."""
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, Residuals]:
    if fused.has_layer_norm(x):
        return fused.layer_norm(x, scale, bias, epsilon), (x, None, None, scale)
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True) + epsilon)
    return ((wide - mean) * inverse * scale + bias).astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(epsilon: float, kept: Residuals, gradient: jax.Array) -> Residuals:
    x, mean, inverse, scale = kept
    if mean is None:
        return fused.layer_norm_gradients(x, scale, gradient, epsilon)
    normal = (x.astype(jnp.float32) - mean) * inverse
    wide = gradient.astype(jnp.float32)
    scaled = wide * scale
    common = jnp.mean(scaled, axis=-1, keepdims=True)
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    to_x = inverse * (scaled - common - normal * along)
    return to_x.astype(x.dtype), jnp.sum(wide * normal, axis=_rows(x)), jnp.sum(wide, axis=_rows(x))


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)

_ODD = (0.7961174295761695, 0.03796868956329325, -0.000497519778369374, 4.605169149735897e-06)
"""Of g, an odd polynomial with tanh(g(x)) ≈ erf(x/√2), fitted to the least error of GELU and of its
derivative."""


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x Φ(x).

    In float32 by the error function. In bfloat16 Φ is (1 + tanh(g(x)))/2 with a polynomial g: off
    by at most 0.6 of 2⁻⁹ of the value, less than what rounding to bfloat16 takes (2⁻⁸ of it at
    most).
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, Residuals]:
    wide = x.astype(jnp.float32)
    square = jnp.square(wide)
    if x.dtype == jnp.float32:
        below = 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5))
    else:
        below = 0.5 + 0.5 * jnp.tanh(wide * _polynomial(_ODD, square))
    density = jnp.exp(-0.5 * square) * (1 / math.sqrt(2 * math.pi))
    made = (wide * below).astype(x.dtype), (below + wide * density).astype(x.dtype)
    # Both are stored: left to itself, XLA stores x and computes them anew wherever they are read.
    value, derivative = jax.lax.optimization_barrier(made)
    return value, (derivative,)


def _gelu_backward(kept: Residuals, gradient: jax.Array) -> Residuals:
    return (gradient * kept[0],)


gelu.defvjp(_gelu_forward, _gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array,
    kept: jax.Array | None,
    rate: float,
) -> tuple[jax.Array, jax.Array]:
    """softmax(q kᵀ/√d) v of each head, and the scores q kᵀ/√d.

    Of arrays `[B, H, L, L]` the backward pass keeps the softmax's numerators alone. Denominators
    are divided out of the products' other sides, which are smaller (as Dao et al. 2022, arXiv
    2205.14135).

    Args:
        query, key, value: `[B, H, L, d]`.
        allowed: bool `[B, 1, L, L]`, which positions each may look at, itself included.
        kept: bool `[B, H, L, L]`, the probabilities that dropout keeps, or None.
        rate: of dropout.

    Returns:
        `[B, H, L, d]` and `[B, H, L, L]`, of the queries' type; the softmax is taken in float32.
    """
    return _attention_forward(query, key, value, allowed, kept, rate)[0]


def _attention_forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array,
    kept: jax.Array | None,
    rate: float,
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    scale = 1 / math.sqrt(query.shape[-1])
    scores = jnp.einsum("BHLd,BHMd->BHLM", query * scale, key)
    masked = jnp.where(allowed, scores, -jnp.inf).astype(jnp.float32)
    powers = jnp.exp(masked - jnp.max(masked, axis=-1, keepdims=True)).astype(query.dtype)
    total = jnp.sum(powers, axis=-1, keepdims=True, dtype=jnp.float32)
    taken = powers if kept is None else jnp.where(kept, powers, 0)
    mixed = _mix("BHLM,BHMd->BHLd", taken, value) / (total * (1 - rate))
    mixed = mixed.astype(query.dtype)
    return (mixed, scores), (query, key, value, powers, total, mixed, kept)


def _attention_backward(
    rate: float, residuals: Residuals, gradients: tuple[jax.Array, jax.Array]
) -> Residuals:
    query, key, value, powers, total, mixed, kept = residuals
    to_mixed, to_scores = gradients
    scale = 1 / math.sqrt(query.shape[-1])
    shared = (to_mixed / total).astype(query.dtype)
    common = jnp.sum((shared * mixed).astype(jnp.float32), axis=-1, keepdims=True)
    of_taken = _mix("BHLd,BHMd->BHLM", shared, value) / (1 - rate)
    taken = powers
    if kept is not None:
        of_taken = jnp.where(kept, of_taken, 0)
        taken = jnp.where(kept, powers, 0)
    of_scores = (powers * (of_taken - common) + to_scores).astype(query.dtype)
    return (
        scale * jnp.einsum("BHLM,BHMd->BHLd", of_scores, key),
        scale * jnp.einsum("BHLM,BHLd->BHMd", of_scores, query),
        jnp.einsum("BHLM,BHLd->BHMd", taken, shared) / (1 - rate),
        None,
        None,
    )


attention.defvjp(_attention_forward, _attention_backward)


def cast(x: jax.Array, dtype: Any) -> jax.Array:
    """In another type, once: left to itself, XLA for TPUs casts in each tile of each matmul anew,
    and gathers what is split over devices before it casts."""
    return x if x.dtype == dtype else jax.lax.optimization_barrier(x.astype(dtype))


def _rows(x: jax.Array) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(x.ndim - 1))


def _over_rows(x: jax.Array, y: jax.Array) -> jax.Array:
    """xᵀ y over all axes but the last: `[..., D]` and `[..., E]` to `[D, E]`."""
    if x.shape[-1] > y.shape[-1] and platform() == "cpu":
        # XLA's CPU compiler copies the first operand to transpose it: the smaller one, and then the
        # small result.
        return _over_rows(y, x).T
    product: jax.Array = jax.lax.dot_general(x, y, ((_rows(x), _rows(y)), ((), ())))
    return product


def _column_sums(x: jax.Array) -> jax.Array:
    """Over all axes but the last, accumulated in float32: `[..., E]` to `[E]`."""
    # A matmul: XLA sums columns slowly, on CPUs and on TPUs. The barrier keeps it from making that
    # sum of it.
    ones = jax.lax.optimization_barrier(jnp.ones((*x.shape[:-1], 8 if on_tpu() else 1), x.dtype))
    dimensions = ((_rows(ones), _rows(x)), ((), ()))
    sums: jax.Array = jax.lax.dot_general(ones, x, dimensions, preferred_element_type=jnp.float32)
    return sums[0]


def _mix(formula: str, x: jax.Array, y: jax.Array) -> jax.Array:
    product: jax.Array = jnp.einsum(formula, x, y, preferred_element_type=jnp.float32)
    return product


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    made: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        made = c + x * made
    return made  # type: ignore[no-any-return]
