"""Rotary positions (RoFormer, Su et al. 2021, arXiv 2104.09864).

A query at position m and a key at position n are turned by angles m θ_i and n θ_i, in each plane i
of a head's width, so that their product depends on m and n through m − n alone. The wavelengths
2π/θ_i = 2π base^(2i/d) go from 2π to about 2π · base tokens.

Planes are half-split: coordinate i turns with coordinate i + d/2, as in GPT-NeoX, Llama and
ModernBERT ("rotate_half"). RoFormer's own code turns neighbours, 2i with 2i + 1: the same up to the
order of a head's coordinates.

Letters in shapes: B batch, L length, H heads, d head width, D = H d width.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import ModelConfig


class Rotation(NamedTuple):
    """The turn of each position in each plane, float32 in whatever type a model computes.

    Attributes:
        cos: cosines of the angles, `[B, L, 1, d/2]`.
        sin: sines of the angles, `[B, L, 1, d/2]`.
    """

    cos: jax.Array
    sin: jax.Array


def rotation_of(
    config: ModelConfig, position_ids: jax.Array, *, is_local: bool = False
) -> Rotation:
    """Compute the rotation that a model gives to positions.

    Args:
        config: a model with rotary positions.
        position_ids: int32 `[B, L]`.
        is_local: whether it is that of layers that see a window alone, which have a base of their
            own.
    """
    base = config.local_rotary_base if is_local else config.rotary_base
    planes = np.arange(config.head_width // 2)
    frequencies = base ** (-2.0 * planes / config.head_width)
    angles = position_ids.astype(jnp.float32)[..., None, None] * frequencies.astype(np.float32)
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: jax.Array, rotation: Rotation, heads: int) -> jax.Array:
    """Turn the queries or the keys of all heads.

    The reference form is the optimized one too: a rotation is linear and its transpose is the
    rotation back, so JAX's own backward pass stores no activation and reads the gradient once.

    Args:
        x: `[B, L, D]`, heads side by side.
        rotation: rotation of the positions of `x`.
        heads: H.

    Returns:
        `[B, L, D]` of the type of `x`; products and sums are float32.
    """
    # [B, L, H, d], and of each head the two halves of its width.
    in_heads = x.astype(jnp.float32).reshape(*x.shape[:2], heads, -1)
    first, second = jnp.split(in_heads, 2, axis=-1)
    turned_first = first * rotation.cos - second * rotation.sin
    turned_second = second * rotation.cos + first * rotation.sin
    turned = jnp.concatenate([turned_first, turned_second], axis=-1)
    return turned.astype(x.dtype).reshape(x.shape)
