"""Random bits by counter, alike inside kernels and outside: a hash of where an element is, in int32
arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp

GOLDEN = 0x9E3779B9 - 2**32
"""2³² over the golden ratio: multiples of it are spread evenly."""
_FIRST = 0x7FEB352D
_SECOND = 0x846CA68B - 2**32
"""Multipliers of a hash of little bias (Wellons, "Prospecting for Hash Functions", 2018)."""
_BITS = 24


def step(elements: int) -> int:
    """What the counter grows by over so many elements."""
    return (elements * GOLDEN + 2**31) % 2**32 - 2**31


def mix(count: jax.Array, other: jax.Array) -> jax.Array:
    """Numbers that look random, of a counter and of another number (broadcast together)."""
    mixed = (count ^ _right(count, 16)) * jnp.int32(_FIRST)
    mixed = (mixed ^ _right(mixed, 15) ^ other) * jnp.int32(_SECOND)
    made: jax.Array = mixed ^ _right(mixed, 16)
    return made


def is_kept(mixed: jax.Array, rate: float) -> jax.Array:
    """Which elements dropout keeps, by what `mix` gives for them: all but a share `rate`, to within
    2⁻²⁵."""
    kept: jax.Array = _right(mixed, 32 - _BITS) >= round(rate * 2**_BITS)
    return kept


def _right(x: jax.Array, bits: int) -> jax.Array:
    return jax.lax.shift_right_logical(x, jnp.full_like(x, bits))
