"""LayerNorm beside plain JAX."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import ops
from tests.models.ops.examples import (
    BF16,
    F32,
    ROUNDING,
    assert_computes,
    assert_near,
    differentiated,
    drawn,
)
from tests.models.ops.plain_layer_norm import EPSILON, plain


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_layer_norm_computes_plain_layer_norm(dtype: Any) -> None:
    x = drawn(3, 10, 12, dtype=dtype)
    scale = drawn(12, seed=1)
    bias = drawn(12, seed=2)
    out = assert_computes(lambda *args: ops.layer_norm(*args, EPSILON), plain, x, scale, bias)
    assert out.dtype == dtype


def test_layer_norm_of_rows_far_from_zero_keeps_their_variance() -> None:
    """The difference E[x²] − E[x]² would cancel."""
    x = 300 + drawn(2, 5, 64)
    out = ops.layer_norm(x, jnp.ones(64), jnp.zeros(64), 1e-12)
    wide = np.asarray(x, np.float64)
    want = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(out, want, atol=1e-3)


def test_layer_norm_without_a_bias_computes_that_with_zeros(request: pytest.FixtureRequest) -> None:
    x = drawn(2, 16, 128)
    scale = drawn(128, seed=1)
    out, grads = differentiated(lambda x, scale: ops.layer_norm(x, scale, None, 1e-6), x, scale)
    zeros = jnp.zeros(128)
    want, (grad_x, grad_scale, _) = differentiated(
        lambda *args: ops.layer_norm(*args, 1e-6), x, scale, zeros
    )
    np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(grads[0], grad_x)
    np.testing.assert_array_equal(grads[1], grad_scale)
    # On TPUs the kernel has a bias, which is 0 then; its size is one that it takes.
    request.getfixturevalue("tpu")
    by_kernel, kernel_grads = differentiated(
        lambda x, scale: ops.layer_norm(x, scale, None, 1e-6), x, scale
    )
    assert_near((by_kernel, kernel_grads), (want, (grad_x, grad_scale)), ROUNDING[F32])
