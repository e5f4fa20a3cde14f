"""Where a step's time goes: sharing time out, and reading XLA's text."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from benchmarks.profiling import operations_of, profile, share_out

pytestmark = pytest.mark.system


def test_time_in_which_several_operations_ran_is_shared() -> None:
    assert share_out([(0, 10, "a"), (4, 8, "b"), (20, 25, "a")]) == {"a": 4 + 2 + 2 + 5, "b": 2}


def test_shares_add_up_to_the_time_in_which_anything_ran() -> None:
    shares = share_out([(0, 10, "a"), (2, 12, "b"), (3, 5, "b"), (30, 31, "c")])
    assert sum(shares.values()) == pytest.approx(13)


def loss(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(x @ w))


def test_operations_have_part_kind_source_and_flops() -> None:
    w = jnp.ones((16, 8))
    x = jnp.ones((32, 16))
    text = jax.jit(jax.grad(loss)).lower(w, x).compile().as_text()
    assert text is not None
    matmuls = [op for op in operations_of(text).values() if op.kind == "matmul"]
    assert {op.part for op in matmuls} == {"forward", "backward"}
    assert [op.flops for op in matmuls] == [2 * 16 * 8 * 32] * 2
    assert all(
        op.source.startswith(__file__.rpartition("/")[2]) or "test_profiling.py:" in op.source
        for op in matmuls
    )


def test_profile_accounts_for_the_matmuls() -> None:
    w = jnp.ones((512, 512))
    x = jnp.ones((512, 512))
    compiled = jax.jit(jax.grad(loss)).lower(w, x).compile()
    profiled = profile(lambda: compiled(w, x), compiled.as_text() or "", 2)
    spent = {profiled.operations[name].kind for name, ms in profiled.milliseconds.items() if ms > 0}
    assert "matmul" in spent
    assert profiled.busy > 0
    assert "| matmul |" in profiled.table()
