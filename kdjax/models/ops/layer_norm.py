"""LayerNorm over the last axis (Ba et al. 2016, arXiv 1607.06450), with statistics in float32.

The variance is that of the centred x: E[x²] − E[x]² cancels where trained encoders have outlier
features. B batch, L length, D width.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.dtypes import at_least_float32
from kdjax.models.ops.kernels import layer_norm as layer_norm_kernel
from kdjax.models.ops.sharding import BATCH_SHARDED, REPLICATED, on_each_device


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """Compute (x − mean)/√(variance + ε) · scale + bias in the type of `x`.

    Args:
        x: `[..., D]`.
        scale: `[D]`.
        bias: `[D]`; None: there is none.
        epsilon: ε, what is added to the variance.
    """
    kernels = {}
    # A kernel takes a bias: of one that is not there it adds zeros, which nobody learns.
    if x.ndim == 3 and layer_norm_kernel.fits(x.shape[1], x.shape[2]):
        kernels["tpu"] = by_tpu_kernel
    form = dispatch.choose(reference, optimized, **kernels)
    if bias is None and form is by_tpu_kernel:
        bias = jnp.zeros_like(scale)
    return form(x, scale, bias, epsilon)


def reference(x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """Compute `layer_norm` in plain JAX."""
    wide = at_least_float32(x)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(variance + epsilon) * scale
    scaled = (wide - mean) * factor
    return (scaled if bias is None else scaled + bias).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def optimized(x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """Compute `layer_norm` with a backward pass that reads x and its statistics alone."""
    return _forward(x, scale, bias, epsilon)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float
) -> tuple[jax.Array, tuple[Any, ...]]:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True) + epsilon)
    scaled = (wide - mean) * inverse * scale
    out = (scaled if bias is None else scaled + bias).astype(x.dtype)
    return out, (x, mean, inverse, scale, bias)


def _backward(epsilon: float, residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[Any, ...]:
    x, mean, inverse, scale, bias = residuals
    normalized = (x.astype(jnp.float32) - mean) * inverse
    wide_grad = grad_out.astype(jnp.float32)
    grad_normalized = wide_grad * scale
    # Statistics depend on every x of a row: the gradient loses its mean, and what lies along the
    # normalized row.
    grad_mean = jnp.mean(grad_normalized, axis=-1, keepdims=True)
    along = jnp.mean(grad_normalized * normalized, axis=-1, keepdims=True)
    grad_x = inverse * (grad_normalized - grad_mean - normalized * along)
    rows = tuple(range(x.ndim - 1))
    grad_scale = jnp.sum(wide_grad * normalized, axis=rows)
    grad_bias = None if bias is None else jnp.sum(wide_grad, axis=rows)
    return grad_x.astype(x.dtype), grad_scale, grad_bias


optimized.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def by_tpu_kernel(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Compute `layer_norm` of `[B, L, D]` by a kernel on each TPU."""

    def kernel(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        rows = x.reshape(-1, x.shape[-1])
        return layer_norm_kernel.forward(rows, scale, bias, epsilon).reshape(x.shape)

    specs = (BATCH_SHARDED, REPLICATED, REPLICATED)
    out: jax.Array = on_each_device(kernel, specs, BATCH_SHARDED)(x, scale, bias)
    return out


def _tpu_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[Any, ...]]:
    return by_tpu_kernel(x, scale, bias, epsilon), (x, scale)


def _tpu_backward(
    epsilon: float, residuals: tuple[Any, ...], grad_out: jax.Array
) -> tuple[Any, ...]:
    def kernel(x: jax.Array, scale: jax.Array, grad_out: jax.Array) -> tuple[Any, ...]:
        width = x.shape[-1]
        grad_x, *sums = layer_norm_kernel.backward(
            x.reshape(-1, width), scale, grad_out.reshape(-1, width), epsilon
        )
        return grad_x.reshape(x.shape), *sums

    specs = (BATCH_SHARDED, REPLICATED, BATCH_SHARDED)
    x, scale = residuals
    grad_x, grad_scale, grad_bias = on_each_device(kernel, specs, (BATCH_SHARDED,) * 3)(
        x, scale, grad_out
    )
    # Each device gives a row of sums.
    return grad_x, jnp.sum(grad_scale, axis=0), jnp.sum(grad_bias, axis=0)


by_tpu_kernel.defvjp(_tpu_forward, _tpu_backward)
