"""Embedding tables, read and multiplied with, beside plain JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import ops
from tests.models.ops.examples import BF16, F32, assert_computes, drawn


@pytest.mark.parametrize(
    ("dtype", "total"),
    [
        (F32, 3000),
        (BF16, 3008),  # the bfloat16 nearest to 3000
    ],
)
def test_embed_sums_a_frequent_rows_gradient_in_float32_and_drops_what_is_out_of_range(
    dtype: Any, total: int
) -> None:
    table = drawn(5, 3, dtype=dtype)
    # A row met 3000 times, another once, and one that the table does not have.
    index = jnp.array([[1] * 3000 + [4, 7]])
    out, pull = jax.vjp(lambda table: ops.embed(table, index), table)
    assert out.dtype == jnp.float32
    assert np.isnan(out[0, -1]).all()
    np.testing.assert_array_equal(out[0, :-1], table[index[0, :-1]].astype(jnp.float32))
    # The row out of range gets no gradient, and no other row gets its.
    (grad,) = pull(jnp.ones_like(out))
    assert grad.dtype == dtype
    np.testing.assert_array_equal(grad[:, 0], [0, total, 0, 0, 1])


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_tied_logits_computes_plain_logits_in_float32(dtype: Any) -> None:
    logits = assert_computes(
        ops.tied_logits,
        lambda x, table, bias: x @ table.T + bias,
        drawn(3, 4, 12, dtype=dtype),
        drawn(30, 12, seed=1),
        drawn(30, seed=2),
    )
    assert logits.dtype == F32


def test_tied_logits_sums_the_bias_gradient_in_float32() -> None:
    """A bfloat16 sum of ones stands still at 256."""
    x = jnp.ones((1, 3000, 1), BF16)
    logits, pull = jax.vjp(lambda bias: ops.tied_logits(x, jnp.ones((1, 1)), bias), jnp.zeros(1))
    np.testing.assert_array_equal(pull(jnp.ones_like(logits))[0], [3000])
