"""The LayerNorm kernel beside plain JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.kernels import layer_norm
from tests.kernels.examples import BF16, F32, drawn, near

WIDTH = 128
EPSILON = 1e-5


def plain(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Mean 0 and variance 1, then scaled and moved."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * scale + bias


@pytest.mark.parametrize(("rows", "blocks"), [(16, 1), (2048, 1), (2064, 3)])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_the_kernel_is_plain_layer_norm(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, rows: int, blocks: int
) -> None:
    monkeypatch.setattr(layer_norm, "_BLOCK_BYTES", 2048 * WIDTH * jnp.dtype(dtype).itemsize)
    x = 3 + drawn(rows, WIDTH, dtype=dtype)
    gradient = drawn(rows, WIDTH, seed=1, dtype=dtype)
    scale = drawn(WIDTH, seed=2)
    bias = drawn(WIDTH, seed=3)

    def run(x: jax.Array, scale: jax.Array, bias: jax.Array, gradient: jax.Array) -> Any:
        made = layer_norm.forward(x, scale, bias, EPSILON, interpret=True)
        return made, layer_norm.backward(x, scale, gradient, EPSILON, interpret=True)

    traced = jax.make_jaxpr(run)(x, scale, bias, gradient)
    grids = [
        eqn.params["grid_mapping"].grid
        for eqn in traced.eqns
        if eqn.primitive.name == "pallas_call"
    ]
    assert grids == [(blocks,)] * 2
    made, (to_x, to_scale, to_bias) = run(x, scale, bias, gradient)
    assert made.dtype == to_x.dtype == dtype and to_scale.dtype == to_bias.dtype == F32
    want, pull = jax.vjp(plain, x.astype(F32), scale, bias)
    near((made, to_x, to_scale[0], to_bias[0]), (want, *pull(gradient.astype(F32))), dtype)


def test_rows_far_from_zero_keep_their_variance() -> None:
    x = 300 + drawn(16, WIDTH)
    made = layer_norm.forward(x, jnp.ones(WIDTH), jnp.zeros(WIDTH), 1e-12, interpret=True)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(
        made, (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True), atol=1e-3
    )


@pytest.mark.parametrize(
    ("rows", "width", "taken"), [(16, 128, True), (20, 128, False), (32, 192, False)]
)
def test_what_it_takes(rows: int, width: int, taken: bool) -> None:
    assert layer_norm.fits(rows, width) is taken
