"""Arrays for operations, and how near two ways of computing must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.tolerance import rounding

F32 = jnp.float32
BF16 = jnp.bfloat16
LENGTH = 128
KERNEL_ROUNDING = {F32: rounding(LENGTH), BF16: 2**-6}
"""How far apart a kernel and plain JAX may be, relative to the norm of a whole array; no sum is
longer than `LENGTH`."""
ROUNDING = {F32: rounding(LENGTH), BF16: 2**-7}
"""How far apart an optimized form and plain JAX may be."""


def drawn(*shape: int, seed: int = 0, dtype: Any = F32) -> jax.Array:
    """Return standard normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def segments(batch: int) -> jax.Array:
    """Return sequences of three packed segments and padding, of one segment, of a single token, in
    turn."""
    place = np.arange(LENGTH)
    packed = np.select([place < 40, place < 41, place < 100], [1, 2, 3], 0)
    rows = [packed, np.ones_like(place), (place < 1).astype(int)]
    return jnp.asarray(np.stack([rows[n % 3] for n in range(batch)]), jnp.int32)


def grids(function: Callable[..., Any], *args: Any) -> list[tuple[int, ...]]:
    """Return the grids of the kernels in a function."""
    equations = jax.make_jaxpr(function)(*args).eqns
    calls = [eqn for eqn in equations if eqn.primitive.name == "pallas_call"]
    return [eqn.params["grid_mapping"].grid for eqn in calls]


def differentiated(function: Callable[..., Any], *args: jax.Array) -> Any:
    """Return a function's results, and the gradients of a sum that weighs every number
    differently, compiled as one."""

    @jax.jit
    def run(*args: jax.Array) -> Any:
        results, pull = jax.vjp(function, *args)
        # Different weights, so that a gradient put in the wrong place shows.
        grads_out = jax.tree.map(
            lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype), results
        )
        return results, pull(grads_out)

    return run(*args)


def distance(got: Any, want: Any) -> float:
    """Return the norm of the difference relative to that of what is wanted."""
    got = np.asarray(got, np.float64)
    want = np.asarray(want, np.float64)
    assert got.shape == want.shape
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def assert_near(got: Any, want: Any, tolerance: float) -> None:
    """Assert that each of several arrays is near the one that is wanted."""
    for got_array, want_array in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert distance(got_array, want_array) < tolerance


def assert_computes(
    function: Callable[..., Any], plain: Callable[..., Any], *args: jax.Array
) -> Any:
    """Assert that a function in the type of its first argument is near another in float32, with its
    gradients, and that these are of the arguments' types; return its results."""
    results, grads = differentiated(function, *args)
    want = differentiated(plain, *(x.astype(F32) for x in args))
    assert_near((results, grads), want, ROUNDING[args[0].dtype.type])
    assert [grad.dtype for grad in grads] == [x.dtype for x in args]
    return results


def stored_for_backward(function: Callable[..., Any], *args: jax.Array) -> list[tuple[Any, Any]]:
    """Return shapes and types of the arrays that a function's backward pass keeps, its arguments
    besides."""
    # Shapes only: the residuals are what the pull function closes over.
    pull = jax.eval_shape(lambda *args: jax.vjp(function, *args)[1], *args)
    return [(x.shape, x.dtype) for x in jax.tree.leaves(pull)]
