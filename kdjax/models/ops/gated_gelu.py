"""Gated GELU, GELU(u) ⊙ g (GeGLU, Shazeer 2020, arXiv 2002.05202)."""

from __future__ import annotations

from typing import Any

import jax

from kdjax.models.ops import dispatch
from kdjax.models.ops.gelu import reference as gelu_reference
from kdjax.models.ops.gelu import value_and_derivative


def gated_gelu(x: jax.Array, gate: jax.Array, kind: str) -> jax.Array:
    """Compute GELU(x) ⊙ gate of every element.

    Args:
        x: inputs of any shape; the result has their shape and type.
        gate: of the same shape and type.
        kind: `exact`, or `tanh` for the approximation.
    """
    if kind == "tanh":
        return jax.nn.gelu(x) * gate
    return dispatch.choose(reference, optimized)(x, gate)


def reference(x: jax.Array, gate: jax.Array) -> jax.Array:
    """Compute the exact gated GELU in plain JAX."""
    return gelu_reference(x) * gate


@jax.custom_vjp
def optimized(x: jax.Array, gate: jax.Array) -> jax.Array:
    """Compute the exact gated GELU and store its two inputs alone.

    They are there already, as the results of one product. GELU and its derivative are computed
    again in the backward pass, which plain JAX would have store both.
    """
    return _forward(x, gate)[0]


def _forward(x: jax.Array, gate: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute GELU(u) ⊙ g; u and g are stored."""
    value, _ = value_and_derivative(x)
    return value * gate, (x, gate)


def _backward(residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[Any, ...]:
    """Compute du = dy ⊙ g ⊙ GELU′(u) and dg = dy ⊙ GELU(u)."""
    x, gate = residuals
    value, derivative = value_and_derivative(x)
    return grad_out * gate * derivative, grad_out * value


optimized.defvjp(_forward, _backward)
