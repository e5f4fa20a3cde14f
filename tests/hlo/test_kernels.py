"""FLOPs of Pallas kernels, from their bodies and grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from kdjax.hlo.kernels import kernel_flops
from tests.hlo.tpu_programs import squares

PRODUCT = 2 * 16 * 16 * 16


def counted(body: Callable[..., None], grid: tuple[int, ...] = (3,)) -> int | None:
    """Return what is counted of a kernel over one 16 x 16 array."""
    shape = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    kernel = pl.pallas_call(body, shape, grid=grid, name="mine")
    return kernel_flops(jax.make_jaxpr(kernel)(shape)).get(("mine", ((16, 16),)))


def multiply(x: Any, out: Any) -> None:
    out[...] = x[...] @ x[...] + 1


def test_matmuls_of_a_kernel_count_at_every_point_of_its_grid() -> None:
    assert counted(multiply) == 3 * PRODUCT
    assert counted(multiply, grid=(2, 5)) == 10 * PRODUCT
    assert counted(lambda x, out: out.__setitem__(..., x[...] + 1)) == 0


def test_loops_count_by_their_turns_and_branches_by_their_larger_side() -> None:
    def looped(x: Any, out: Any) -> None:
        out[...] = jax.lax.fori_loop(0, 7, lambda _, y: y @ x[...], x[...])

    def sometimes(x: Any, out: Any) -> None:
        pl.when(pl.program_id(0) == 0)(lambda: multiply(x, out))

    assert counted(looped) == 3 * 7 * PRODUCT
    assert counted(sometimes) == 3 * PRODUCT


def test_loop_of_unknown_length_is_left_out() -> None:
    def until(x: Any, out: Any) -> None:
        turns = x[0, 0].astype(jnp.int32)
        out[...] = jax.lax.fori_loop(0, turns, lambda _, y: y @ x[...], x[...])

    assert counted(until) is None


@pytest.mark.parametrize("around", [jax.jit, jax.checkpoint, jax.vmap], ids=lambda f: f.__name__)
def test_kernels_are_found_wherever_they_are(around: Callable[..., Any]) -> None:
    x = jax.ShapeDtypeStruct((6, 4, 32, 32) if around is jax.vmap else (4, 32, 32), jnp.float32)
    (flops,) = kernel_flops(jax.make_jaxpr(around(squares))(x)).values()
    assert flops == (6 if around is jax.vmap else 1) * 4 * 2 * 32**3
