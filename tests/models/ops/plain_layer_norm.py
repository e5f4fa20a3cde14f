"""LayerNorm as its equation has it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPSILON = 1e-5


def plain(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Return rows of mean 0 and variance 1, scaled and moved."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * scale + bias
