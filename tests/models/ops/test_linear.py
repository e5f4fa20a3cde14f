"""Linear layers beside plain JAX: values, gradients and their types."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import ops
from kdjax.models.ops import dispatch
from kdjax.models.ops.linear import linear_apart, linear_joined
from tests.models.ops.examples import BF16, F32, ROUNDING, assert_computes, assert_near, drawn


def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return x @ kernel + bias


@pytest.mark.parametrize("feeds_activation", [False, True])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_linear_computes_plain_linear_on_every_platform(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, platform: str, feeds_activation: bool
) -> None:
    monkeypatch.setattr(dispatch, "platform", lambda: platform)
    x = drawn(3, 10, 12, dtype=dtype)
    kernel = drawn(12, 20, seed=1)
    bias = drawn(20, seed=2)
    out = assert_computes(lambda *args: ops.linear(*args, feeds_activation), plain, x, kernel, bias)
    assert out.dtype == dtype


def test_linear_to_a_smaller_width_computes_plain_linear() -> None:
    """The weight's gradient is computed transposed on CPUs where the input is the wider one."""
    assert_computes(ops.linear, plain, drawn(3, 10, 12), drawn(12, 8, seed=1), drawn(8, seed=2))


@pytest.mark.parametrize("form", [linear_apart, linear_joined])
def test_linear_each_computes_every_layer(form: Any) -> None:
    x = drawn(3, 10, 12)
    kernels = [drawn(12, 20, seed=n) for n in range(3)]
    biases = [drawn(20, seed=n) for n in range(3, 6)]
    outs = form(x, kernels, biases)
    want = [plain(x, kernel, bias) for kernel, bias in zip(kernels, biases, strict=True)]
    assert_near(outs, want, ROUNDING[F32])


def test_bias_gradient_is_summed_in_float32() -> None:
    """A bfloat16 sum of ones stands still at 256."""
    x = jnp.ones((1, 3000, 1), BF16)
    kernel = jnp.ones((1, 1))
    out, pull = jax.vjp(lambda bias: ops.linear(x, kernel, bias), jnp.zeros(1))
    np.testing.assert_array_equal(pull(jnp.ones_like(out))[0], [3000])


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_linear_without_a_bias_computes_the_product(dtype: Any) -> None:
    out = assert_computes(
        lambda x, kernel: ops.linear(x, kernel, None),
        lambda x, kernel: x @ kernel,
        drawn(3, 10, 12, dtype=dtype),
        drawn(12, 20, seed=1),
    )
    assert out.dtype == dtype


@pytest.mark.parametrize("form", [linear_apart, linear_joined])
def test_linear_each_without_biases_computes_every_product(form: Any) -> None:
    x = drawn(3, 10, 12)
    kernels = [drawn(12, 20, seed=n) for n in range(2)]
    assert_near(form(x, kernels, [None, None]), [x @ kernel for kernel in kernels], ROUNDING[F32])
