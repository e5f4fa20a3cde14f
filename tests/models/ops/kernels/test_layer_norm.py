"""The LayerNorm kernel beside plain JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.ops.kernels import layer_norm
from tests.models.ops.examples import BF16, F32, KERNEL_ROUNDING, assert_near, drawn, grids
from tests.models.ops.plain_layer_norm import EPSILON, plain

WIDTH = 128


@pytest.mark.parametrize(
    ("rows", "blocks"), [(16, 1), pytest.param(2048, 1, marks=pytest.mark.exhaustive), (2064, 3)]
)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_kernel_computes_plain_layer_norm_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, rows: int, blocks: int
) -> None:
    # Of 2048 rows a block: one, and one that is not full.
    monkeypatch.setattr(layer_norm, "BLOCK_BYTES", 2048 * WIDTH * jnp.dtype(dtype).itemsize)
    x = 3 + drawn(rows, WIDTH, dtype=dtype)
    grad_out = drawn(rows, WIDTH, seed=1, dtype=dtype)
    scale = drawn(WIDTH, seed=2)
    bias = drawn(WIDTH, seed=3)

    def run(x: jax.Array, scale: jax.Array, bias: jax.Array, grad_out: jax.Array) -> Any:
        out = layer_norm.forward(x, scale, bias, EPSILON, interpret=True)
        return out, layer_norm.backward(x, scale, grad_out, EPSILON, interpret=True)

    assert grids(run, x, scale, bias, grad_out) == [(blocks,)] * 2
    out, grads = run(x, scale, bias, grad_out)
    # Gradients of scale and bias are summed over blocks, so in float32.
    grad_x, grad_scale, grad_bias = grads
    assert out.dtype == grad_x.dtype == dtype
    assert grad_scale.dtype == grad_bias.dtype == F32
    want, pull = jax.vjp(plain, x.astype(F32), scale, bias)
    got = (out, grad_x, grad_scale[0], grad_bias[0])
    assert_near(got, (want, *pull(grad_out.astype(F32))), KERNEL_ROUNDING[dtype])


def test_kernel_of_rows_far_from_zero_keeps_their_variance() -> None:
    # E[x²] − E[x]² would leave nothing of a variance of 1 beside 90 000.
    x = 300 + drawn(16, WIDTH)
    out = layer_norm.forward(x, jnp.ones(WIDTH), jnp.zeros(WIDTH), 1e-12, interpret=True)
    wide = np.asarray(x, np.float64)
    want = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    np.testing.assert_allclose(out, want, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "width", "fits"), [(16, 128, True), (20, 128, False), (32, 192, False)]
)
def test_kernel_fits_whole_tiles(rows: int, width: int, fits: bool) -> None:
    assert layer_norm.fits(rows, width) is fits
