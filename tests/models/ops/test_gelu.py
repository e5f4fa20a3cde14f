"""GELU beside SciPy's normal distribution."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from kdjax.models import ops
from kdjax.models.ops.gelu import optimized
from tests.models.ops.examples import BF16, stored_for_backward
from tests.support.tolerance import rounding


def density(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)


def gelu_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, pull = jax.vjp(lambda x: ops.gelu(x, "exact"), x)
    return value, pull(jnp.ones_like(value))[0]


def test_gelu_in_float32_is_exact() -> None:
    x = jnp.linspace(-12, 12, 20001)
    value, slope = gelu_and_slope(x)
    wide = np.asarray(x, np.float64)
    # Φ is added up of a polynomial of ten terms, none above 1; the value is x Φ, the slope Φ + x φ.
    error = rounding(10) * (1 + np.abs(wide))
    assert np.all(np.abs(value - wide * ndtr(wide)) <= error)
    assert np.all(np.abs(slope - ndtr(wide) - wide * density(wide)) <= error)


def test_gelu_of_every_bfloat16_is_exact_but_for_its_rounding() -> None:
    """Rounding to bfloat16 errs by up to 2^-8 of the value; the polynomial adds at most 0.6 of
    2^-9."""
    every = np.arange(2**16, dtype=np.uint16).view(BF16)
    x = every[np.isfinite(every.astype(np.float32))]
    # All but the infinities and NaNs, whose exponent is all ones.
    assert len(x) == 2**16 - 2**8
    value, slope = gelu_and_slope(jnp.asarray(x))
    assert value.dtype == slope.dtype == BF16
    wide = x.astype(np.float64)
    np.testing.assert_allclose(
        np.asarray(value, np.float64), wide * ndtr(wide), rtol=2**-8 + 0.6 * 2**-9, atol=1e-6
    )
    exact = ndtr(wide) + wide * density(wide)
    np.testing.assert_allclose(np.asarray(slope, np.float64), exact, rtol=2**-8, atol=2**-11)


def test_gelu_stores_its_derivative_alone() -> None:
    assert stored_for_backward(optimized, jnp.ones((4, 7), BF16)) == [((4, 7), BF16)]
