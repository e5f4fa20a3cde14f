"""Linear layers, x W + b or x W. B batch, L length, D width of the input, E width of the output."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.dtypes import cast

Biases = Sequence[jax.Array | None]
"""The biases of several linear layers: of all of them, or of none."""


def linear(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, feeds_activation: bool = False
) -> jax.Array:
    """Compute x W + b in the type of `x`.

    Args:
        x: `[..., D]`.
        kernel: W, `[D, E]`.
        bias: b, `[E]`; None: there is none.
        feeds_activation: whether an elementwise function follows.

    Returns:
        `[..., E]`.
    """
    return dispatch.choose(reference, optimized)(x, kernel, bias, feeds_activation)


def linear_each(x: jax.Array, kernels: Sequence[jax.Array], biases: Biases) -> list[jax.Array]:
    """Compute x W + b for several linear layers of the same input and of equal widths.

    Args:
        x: `[..., D]`.
        kernels: matrix W of each layer, `[D, E]`.
        biases: vector b of each layer, `[E]`; None for all: there are none.

    Returns:
        Each layer's result, `[..., E]`.
    """
    if dispatch.layers_are_split():
        # The parts of one product would have to be laid out anew.
        return linear_apart(x, kernels, biases)
    return dispatch.choose(linear_apart, linear_joined)(x, kernels, biases)


def reference(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, feeds_activation: bool
) -> jax.Array:
    """Compute `linear` in plain JAX."""
    product = x @ kernel.astype(x.dtype)
    if bias is None:
        return product
    return product + bias.astype(x.dtype)


def optimized(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, feeds_activation: bool
) -> jax.Array:
    """Compute `linear` with the bias's gradient summed in float32."""
    return _linear(x, cast(kernel, x.dtype), bias, feeds_activation)


def linear_apart(x: jax.Array, kernels: Sequence[jax.Array], biases: Biases) -> list[jax.Array]:
    """Compute `linear_each` by one product a layer."""
    return [linear(x, kernel, bias) for kernel, bias in zip(kernels, biases, strict=True)]


def linear_joined(x: jax.Array, kernels: Sequence[jax.Array], biases: Biases) -> list[jax.Array]:
    """Compute `linear_each` by one product."""
    present = [bias for bias in biases if bias is not None]
    joined_bias = jnp.concatenate(present, axis=-1) if present else None
    joined = linear(x, jnp.concatenate(kernels, axis=-1), joined_bias)
    return jnp.split(joined, len(kernels), axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _linear(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, feeds_activation: bool
) -> jax.Array:
    """Compute `linear` of a kernel of the type of `x`."""
    return _forward(x, kernel, bias, feeds_activation)[0]


def _forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, feeds_activation: bool
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute y = x W + b; x, W and b are stored."""
    # A plain product, which `compute.remat: dots` finds.
    return reference(x, kernel, bias, feeds_activation), (x, kernel, bias)


def _backward(
    feeds_activation: bool, residuals: tuple[Any, ...], grad_out: jax.Array
) -> tuple[Any, ...]:
    """Compute dx = dy Wᵀ `[..., D]`, dW = xᵀ dy `[D, E]` and db, the sum of dy's rows, `[E]`."""
    x, kernel, bias = residuals
    grad_bias = _bias_gradient(grad_out, feeds_activation) if bias is not None else None
    return grad_out @ kernel.T, weight_gradient(x, grad_out), grad_bias


_linear.defvjp(_forward, _backward)


def _bias_gradient(grad_out: jax.Array, feeds_activation: bool) -> jax.Array:
    """Sum the gradient of a linear layer's result over its rows, in float32."""
    if feeds_activation and dispatch.on_tpu():
        # The sums join the elementwise work that makes the gradient, and cost next to nothing.
        return jnp.sum(grad_out, axis=leading_axes(grad_out), dtype=jnp.float32)
    return column_sums(grad_out)


def weight_gradient(x: jax.Array, grad_out: jax.Array) -> jax.Array:
    """Compute the gradient of a linear layer's kernel, xᵀ dy, summed over all rows.

    Args:
        x: `[..., D]`: input of the layer.
        grad_out: `[..., E]`: gradient dy of its output.

    Returns:
        `[D, E]`.
    """
    if x.shape[-1] > grad_out.shape[-1] and dispatch.platform() == "cpu":
        # XLA's CPU compiler copies the first operand to transpose it: here the smaller one, and
        # then the small result.
        return weight_gradient(grad_out, x).T
    axes = leading_axes(x)
    product: jax.Array = jax.lax.dot_general(x, grad_out, ((axes, axes), ((), ())))
    return product


def column_sums(x: jax.Array) -> jax.Array:
    """Sum over all axes but the last, accumulated in float32: `[..., E]` to `[E]`."""
    # As a matmul with ones: XLA sums columns slowly, on CPUs and on TPUs. The barrier keeps it from
    # turning the matmul back into that sum.
    rows = 8 if dispatch.on_tpu() else 1
    ones = jax.lax.optimization_barrier(jnp.ones((*x.shape[:-1], rows), x.dtype))
    axes = leading_axes(x)
    sums: jax.Array = jax.lax.dot_general(
        ones, x, ((axes, axes), ((), ())), preferred_element_type=jnp.float32
    )
    return sums[0]


def leading_axes(x: jax.Array) -> tuple[int, ...]:
    """Return all axes but the last."""
    return tuple(range(x.ndim - 1))
