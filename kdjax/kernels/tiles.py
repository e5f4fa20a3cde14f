"""What kernels are made of: matrices in on-chip memory. L length."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LANES = 128
"""Columns of a tile."""
ALIKE = (((1,), (1,)), ((), ()))
"""x yᵀ, as `dot` takes it."""
ACROSS = (((1,), (0,)), ((), ()))
"""x y."""
DOWN = (((0,), (0,)), ((), ()))
"""xᵀ y."""


def apart(segments: jax.Array) -> jax.Array:
    """Which pairs of positions do not see each other, `[L, L]`, from the segments of a sequence
    `[1, L]`."""
    of_keys = jnp.broadcast_to(segments, (segments.shape[1],) * 2)
    return of_keys != of_keys.T


def dot(x: jax.Array, y: jax.Array, dimensions: Any) -> jax.Array:
    """A product of two matrices, accumulated in float32."""
    product: jax.Array = jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
    return product
