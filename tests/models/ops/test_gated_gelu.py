"""The gated GELU beside plain JAX: values, both gradients, and what it stores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from kdjax.models import ops
from kdjax.models.ops.gated_gelu import optimized
from tests.models.ops.examples import BF16, F32, assert_computes, drawn, stored_for_backward


@pytest.mark.parametrize("kind", ["exact", "tanh"])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_gated_gelu_computes_plain_gated_gelu(dtype: Any, kind: str) -> None:
    def plain(x: jax.Array, gate: jax.Array) -> jax.Array:
        return jax.nn.gelu(x, approximate=kind == "tanh") * gate

    x = drawn(3, 10, 8, dtype=dtype)
    gate = drawn(3, 10, 8, seed=1, dtype=dtype)
    out = assert_computes(lambda *args: ops.gated_gelu(*args, kind), plain, x, gate)
    assert out.dtype == dtype


def test_gated_gelu_stores_its_inputs_alone() -> None:
    x = jnp.ones((4, 7), BF16)
    assert stored_for_backward(optimized, x, x) == [((4, 7), BF16)] * 2
