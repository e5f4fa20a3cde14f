"""LayerNorm over the last axis (Ba et al. 2016, arXiv 1607.06450), with statistics in float32.

The variance is that of the centred x: E[x²] − E[x]² cancels where trained encoders have outlier
features. B batch, L length, D width; μ and σ² mean and variance of a row, r = 1/√(σ² + ε),
x̂ = (x − μ) r, γ scale, β bias; dX the gradient of the loss by X.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.dtypes import at_least_float32
from kdjax.models.ops.kernels import layer_norm as layer_norm_kernel
from kdjax.models.ops.linear import leading_axes
from kdjax.models.ops.sharding import BATCH_SHARDED, REPLICATED, on_each_device


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """Compute (x − mean)/√(variance + ε) · scale + bias in the type of `x`.

    Args:
        x: `[..., D]`.
        scale: `[D]`.
        bias: `[D]`; None: there is none.
        epsilon: ε, what is added to the variance.
    """
    by_platform = {}
    # A kernel takes a bias: of one that is not there it adds zeros, which nobody learns.
    if x.ndim == 3 and layer_norm_kernel.fits(x.shape[1], x.shape[2]):
        by_platform["tpu"] = by_tpu_kernel
    form = dispatch.choose(reference, optimized, **by_platform)
    if bias is None and form is by_tpu_kernel:
        bias = jnp.zeros_like(scale)
    return form(x, scale, bias, epsilon)


def reference(x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """Compute `layer_norm` in plain JAX."""
    wide = at_least_float32(x)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(variance + epsilon) * scale
    out = (wide - mean) * factor
    if bias is not None:
        out = out + bias
    return out.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def optimized(x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float) -> jax.Array:
    """Compute `layer_norm` with a backward pass that reads x and its statistics alone."""
    return _forward(x, scale, bias, epsilon)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None, epsilon: float
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute y = γ ⊙ x̂ + β; x, μ, r, γ and β are stored."""
    wide = x.astype(jnp.float32)  # [..., D]
    mean = jnp.mean(wide, axis=-1, keepdims=True)  # [..., 1]
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)  # [..., 1]
    inverse = jax.lax.rsqrt(variance + epsilon)  # [..., 1]
    out = (wide - mean) * inverse * scale  # [..., D]
    if bias is not None:
        out = out + bias
    return out.astype(x.dtype), (x, mean, inverse, scale, bias)


def _backward(epsilon: float, residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[Any, ...]:
    """Compute, with g = γ ⊙ dy: dx = r (g − mean(g) − x̂ ⊙ mean(g ⊙ x̂)), and, summed over the rows,
    dγ = Σ dy ⊙ x̂ and dβ = Σ dy."""
    x, mean, inverse, scale, bias = residuals
    normalized = (x.astype(jnp.float32) - mean) * inverse  # [..., D]
    wide_grad = grad_out.astype(jnp.float32)  # [..., D]
    grad_normalized = wide_grad * scale  # [..., D]
    # Statistics depend on every x of a row: the gradient loses its mean, and what lies along the
    # normalized row.
    grad_mean = jnp.mean(grad_normalized, axis=-1, keepdims=True)  # [..., 1]
    along = jnp.mean(grad_normalized * normalized, axis=-1, keepdims=True)  # [..., 1]
    grad_x = inverse * (grad_normalized - grad_mean - normalized * along)  # [..., D]
    axes = leading_axes(x)
    grad_scale = jnp.sum(wide_grad * normalized, axis=axes)  # [D]
    grad_bias = None
    if bias is not None:
        grad_bias = jnp.sum(wide_grad, axis=axes)  # [D]
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
    """Compute y by the kernel; x and γ are stored, statistics are computed again."""
    return by_tpu_kernel(x, scale, bias, epsilon), (x, scale)


def _tpu_backward(
    epsilon: float, residuals: tuple[Any, ...], grad_out: jax.Array
) -> tuple[Any, ...]:
    """Compute dx, dγ and dβ by the kernel, by the formulas of `_backward`; sums are joined over
    devices."""

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
