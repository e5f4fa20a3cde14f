"""Vectors as the heads of an attention take them.

B batch, L length, D width, H heads, d head width, D = H d.
"""

from __future__ import annotations

import jax


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """Return `[B, L, D]` as `[B, H, L, d]`."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def merge_heads(x: jax.Array) -> jax.Array:
    """Return `[B, H, L, d]` as `[B, L, D]`."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
