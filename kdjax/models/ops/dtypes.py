"""The types that operations compute in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """Return `x` as float32, or as it is if wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def cast(x: jax.Array, dtype: Any) -> jax.Array:
    """Return `x` in another type, converted once.

    Without the barrier XLA for TPUs converts in each tile of each matmul anew, and gathers what is
    split over devices before it converts.
    """
    if x.dtype == dtype:
        return x
    converted: jax.Array = jax.lax.optimization_barrier(x.astype(dtype))
    return converted
