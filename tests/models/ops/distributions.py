"""Scores of small distributions in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SHAPE = (3, 4, 7)
SIZES = [1.0, 1e4]


def scores(seed: int, size: float = 1.0) -> jax.Array:
    """Return normal numbers of a size."""
    return jnp.asarray(size * np.random.default_rng(seed).normal(size=SHAPE))


def assert_same(got: Any, want: Any) -> None:
    """Assert that arrays of float64 are finite and equal but for rounding."""
    for got_array, want_array in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert got_array.dtype == want_array.dtype == jnp.float64
        assert np.isfinite(got_array).all()
        # Scores of 1e4 make losses of that size, whose rounding is as much larger.
        largest = max(1.0, float(np.abs(want_array).max()))
        np.testing.assert_allclose(got_array, want_array, rtol=1e-12, atol=1e-12 * largest)
