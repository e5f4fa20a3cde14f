"""GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415), x Φ(x), exact or in its tanh approximation."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch

_TANH_COEFFICIENTS = (
    0.7961174295761695,
    0.03796868956329325,
    -0.000497519778369374,
    4.605169149735897e-06,
)
"""Coefficients of an odd polynomial g with tanh(g(x)) ≈ erf(x/√2), fitted to the least error of
GELU and of its derivative."""


def gelu(x: jax.Array, kind: str) -> jax.Array:
    """Compute GELU of every element.

    Args:
        x: inputs of any shape; the result has their shape and type.
        kind: `exact`, or `tanh` for the approximation.
    """
    if kind == "tanh":
        return jax.nn.gelu(x)
    return dispatch.choose(reference, optimized)(x)


def reference(x: jax.Array) -> jax.Array:
    """Compute the exact GELU in plain JAX."""
    # jax.nn.gelu's exact form uses erfc, which XLA expands into a polynomial and counts as 66 FLOPs
    # an element.
    return 0.5 * x * (1 + _erf(x * math.sqrt(0.5)))


@jax.custom_jvp
def _erf(x: jax.Array) -> jax.Array:
    """Compute the error function, with a derivative of 3 FLOPs an element.

    By XLA's count JAX 0.12 takes 23 for it, and JAX 0.10 takes 3.
    """
    return jax.lax.erf(x)


_erf.defjvps(lambda tangent, _, x: 2 / math.sqrt(math.pi) * (tangent * jnp.exp(-jnp.square(x))))


@jax.custom_vjp
def optimized(x: jax.Array) -> jax.Array:
    """Compute the exact GELU and store its derivative in place of x.

    In float32 Φ is computed by the error function. In bfloat16 it is (1 + tanh(g(x)))/2 with a
    polynomial g: off by at most 0.6 of 2⁻⁹ of the value, less than what rounding to bfloat16 takes
    (2⁻⁸ of it at most).
    """
    return _forward(x)[0]


def value_and_derivative(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the exact GELU of every element and its derivative, as `optimized` has them."""
    wide = x.astype(jnp.float32)
    square = jnp.square(wide)
    if x.dtype == jnp.float32:
        cumulative = 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5))
    else:
        cumulative = 0.5 + 0.5 * jnp.tanh(wide * _polynomial(_TANH_COEFFICIENTS, square))
    density = jnp.exp(-0.5 * square) * (1 / math.sqrt(2 * math.pi))
    value = (wide * cumulative).astype(x.dtype)
    derivative = (cumulative + wide * density).astype(x.dtype)
    return value, derivative


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    """Compute GELU(x) = x Φ(x); its derivative Φ(x) + x φ(x) is stored."""
    # The barrier has both stored: without it XLA stores x and computes them wherever they are read.
    value, derivative = jax.lax.optimization_barrier(value_and_derivative(x))
    return value, (derivative,)


def _backward(residuals: tuple[Any, ...], grad_out: jax.Array) -> tuple[Any, ...]:
    """Compute dx = dy ⊙ (Φ(x) + x φ(x))."""
    (derivative,) = residuals
    return (grad_out * derivative,)


optimized.defvjp(_forward, _backward)


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    """Evaluate a polynomial by Horner's rule, coefficients in ascending order."""
    result = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = coefficient + x * result
    return result
