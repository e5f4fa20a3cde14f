"""Arrays for kernels, which run as plain JAX here, and how near two ways of computing must be."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.tolerance import rounding

F32 = jnp.float32
BF16 = jnp.bfloat16
LENGTH = 128
ROUNDING = {F32: rounding(LENGTH), BF16: 2**-6}
"""How far apart two ways of computing may be, relative to the norm of a whole array; no sum is
longer than `LENGTH`."""


def drawn(*shape: int, seed: int = 0, dtype: Any = F32) -> jax.Array:
    """Standard normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def segments(batch: int) -> jax.Array:
    """Three packed segments and padding, a full sequence, one of a single token, and so on in
    turn."""
    place = np.arange(LENGTH)
    packed = np.where(place < 40, 1, np.where(place < 41, 2, np.where(place < 100, 3, 0)))
    rows = [packed, np.ones_like(place), np.where(place < 1, 1, 0)]
    return jnp.asarray(np.stack([rows[n % 3] for n in range(batch)]), jnp.int32)


def distance(got: Any, want: Any) -> float:
    """Norm of the difference relative to that of what is wanted."""
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    assert got.shape == want.shape
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def near(got: Any, want: Any, dtype: Any) -> None:
    """Each of several arrays is near the one that is wanted."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert distance(a, b) < ROUNDING[dtype]
