"""What kernels share: attention's settings, products of matrices in on-chip memory, masks and
blocks. L length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

LANES = 128
"""Columns of a tile."""
X_YT = (((1,), (1,)), ((), ()))
"""The axes of x yᵀ, as `dot` takes them."""
X_Y = (((1,), (0,)), ((), ()))
"""The axes of x y."""
XT_Y = (((0,), (0,)), ((), ()))
"""The axes of xᵀ y."""


@dataclass(frozen=True)
class AttentionSettings:
    """What attention is compiled for besides shapes, the same for each of its forms; hashable.

    Attributes:
        heads: H; it divides the width.
        dropout_rate: probability that dropout zeroes a probability; 0: there is no dropout.
        half_window: positions that a position sees to either side; None: all of its segment's.
        with_scores: whether the scores are wanted; the forms in plain JAX return them always.
    """

    heads: int
    dropout_rate: float = 0.0
    half_window: int | None = None
    with_scores: bool = False


def hidden_pairs(segments: jax.Array, half_window: int | None = None) -> jax.Array:
    """Return the pairs of positions that do not see each other, bool `[L, L]`.

    They are those with segments_i ≠ segments_j and, where there is a window, |i − j| above its
    half.

    Args:
        segments: segment numbers of one sequence, int32 `[1, L]`.
        half_window: positions that a position sees to either side; None: all of its segment's.
    """
    of_keys = jnp.broadcast_to(segments, (segments.shape[1],) * 2)
    hidden = of_keys != of_keys.T
    if half_window is None:
        return hidden
    row = jax.lax.broadcasted_iota(jnp.int32, hidden.shape, 0)
    column = jax.lax.broadcasted_iota(jnp.int32, hidden.shape, 1)
    return hidden | (jnp.abs(row - column) > half_window)


def dot(x: jax.Array, y: jax.Array, axes: Any) -> jax.Array:
    """Compute x y, x yᵀ or xᵀ y as float32, accumulated in float32.

    Args:
        x: a matrix.
        y: another one.
        axes: `X_Y`, `X_YT` or `XT_Y`: which of the products.
    """
    product: jax.Array = jax.lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)
    return product


def largest_block(size: int, limit: int, multiple: int = 1) -> int:
    """Find the largest divisor of `size` up to `limit` that is a multiple of `multiple`.

    It is `multiple` where no such divisor is within `limit`.

    Args:
        size: number of sequences or rows.
        limit: largest number that a step of a kernel's grid takes.
        multiple: number of rows in a tile; it divides `size`.
    """
    block = multiple
    for candidate in range(multiple, max(multiple, limit) + 1, multiple):
        if size % candidate == 0:
            block = candidate
    return block
