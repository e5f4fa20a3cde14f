"""The relation kernel beside plain JAX."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.kernels import relation
from tests.kernels.examples import BF16, F32, LENGTH, drawn, near, segments

HEADS = 4
OWN = 128
OTHER = 256


def log_relation(x: jax.Array, groups: jax.Array) -> jax.Array:
    """log softmax(X Xᵀ/√d) of each relation head, `[B, A, L, L]`."""
    parts = x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)
    products = parts @ parts.swapaxes(-1, -2) / math.sqrt(parts.shape[-1])
    return jax.nn.log_softmax(
        jnp.where(groups[:, None, :, None] == groups[:, None, None], products, -1e30)
    )


def plain(student: jax.Array, teacher: jax.Array, groups: jax.Array) -> jax.Array:
    """KL(R_t‖R_s) of each row, summed over relation heads."""
    own = log_relation(student, groups)
    target = log_relation(teacher, groups)
    return jnp.sum(jnp.exp(target) * (target - own), axis=(1, 3))


@pytest.mark.parametrize(("dtype", "batch"), [(F32, 1), (F32, 4), (BF16, 3)])
def test_the_kernel_is_the_plain_divergence(dtype: Any, batch: int) -> None:
    """A step of its grid takes one or two sequences."""
    student = drawn(batch, LENGTH, OWN, dtype=dtype)
    teacher = drawn(batch, LENGTH, OTHER, seed=1, dtype=dtype)
    groups = segments(batch)
    gradient = drawn(batch, LENGTH, seed=2)
    made = relation.forward(student, teacher, groups, HEADS, interpret=True)
    back = relation.backward(student, teacher, groups, gradient, HEADS, interpret=True)
    assert made.dtype == F32 and back.dtype == dtype
    want, pull = jax.vjp(lambda x: plain(x, teacher.astype(F32), groups), student.astype(F32))
    near((made, back), (want, *pull(gradient)), dtype)


def test_equal_relations_are_no_divergence_and_give_no_gradient() -> None:
    x = drawn(2, LENGTH, OWN)
    groups = segments(2)
    np.testing.assert_allclose(relation.forward(x, x, groups, HEADS, interpret=True), 0, atol=1e-6)
    back = relation.backward(x, x, groups, jnp.ones((2, LENGTH)), HEADS, interpret=True)
    np.testing.assert_allclose(back, 0, atol=1e-6)


def test_large_products_are_no_matter() -> None:
    student = 30 * drawn(1, LENGTH, OWN)
    teacher = 30 * drawn(1, LENGTH, OTHER, seed=1)
    groups = segments(1)
    made = relation.forward(student, teacher, groups, HEADS, interpret=True)
    np.testing.assert_allclose(made, plain(student, teacher, groups), rtol=1e-4, atol=1e-3)
    back = relation.backward(student, teacher, groups, jnp.ones((1, LENGTH)), HEADS, interpret=True)
    assert np.isfinite(back).all()


@pytest.mark.parametrize(
    ("length", "widths", "heads", "taken"),
    [
        (128, (128, 768), 16, True),
        (128, (768, 1024), 64, False),  # heads of 12 columns
        (120, (128, 768), 16, False),
        (128, (192, 768), 12, False),
    ],
)
def test_what_it_takes(length: int, widths: tuple[int, int], heads: int, taken: bool) -> None:
    assert relation.fits(length, widths, heads) is taken
