"""Random bits by counter: a hash of an element's place in int32 arithmetic, the same inside kernels
and outside."""

from __future__ import annotations

import jax
import jax.numpy as jnp

GOLDEN = 0x9E3779B9 - 2**32
"""2³² over the golden ratio: multiples of it are spread evenly."""
_FIRST = 0x7FEB352D
_SECOND = 0x846CA68B - 2**32
"""Multipliers of a hash of little bias (Wellons, "Prospecting for Hash Functions", 2018)."""
_BITS = 24


def stride(elements: int) -> int:
    """Return the counter's growth over some elements, as an int32."""
    return (elements * GOLDEN + 2**31) % 2**32 - 2**31


def hash_counter(count: jax.Array, seed: jax.Array) -> jax.Array:
    """Hash counters with a seed to int32 numbers that look random.

    Args:
        count: int32 counters.
        seed: int32, broadcast against `count`.
    """
    mixed = (count ^ _right(count, 16)) * jnp.int32(_FIRST)
    mixed = (mixed ^ _right(mixed, 15) ^ seed) * jnp.int32(_SECOND)
    hashed: jax.Array = mixed ^ _right(mixed, 16)
    return hashed


def is_kept(hashed: jax.Array, rate: float) -> jax.Array:
    """Decide by hashes which elements dropout keeps.

    Args:
        hashed: int32 hashes, an element each.
        rate: share of elements that is dropped, to within 2⁻²⁵.

    Returns:
        bool array: whether an element is kept.
    """
    keep: jax.Array = _right(hashed, 32 - _BITS) >= round(rate * 2**_BITS)
    return keep


def _right(x: jax.Array, bits: int) -> jax.Array:
    """Shift `x` to the right by so many bits, with zeros."""
    return jax.lax.shift_right_logical(x, jnp.full_like(x, bits))
