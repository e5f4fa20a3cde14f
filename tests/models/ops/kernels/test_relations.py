"""The relation kernel beside plain JAX."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.ops.kernels import relations
from tests.models.ops.examples import (
    BF16,
    F32,
    KERNEL_ROUNDING,
    LENGTH,
    assert_near,
    drawn,
    segments,
)

HEADS = 4
STUDENT_WIDTH = 128
TEACHER_WIDTH = 256


def log_relation(x: jax.Array, segments: jax.Array) -> jax.Array:
    """Compute log softmax(X Xᵀ/√d) of each relation head, `[B, A, L, L]`."""
    in_heads = x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)
    scores = in_heads @ in_heads.swapaxes(-1, -2) / math.sqrt(in_heads.shape[-1])
    same_segment = segments[:, None, :, None] == segments[:, None, None]
    return jax.nn.log_softmax(jnp.where(same_segment, scores, -1e30))


def plain(student: jax.Array, teacher: jax.Array, segments: jax.Array) -> jax.Array:
    """Compute KL(R_t‖R_s) of each row, summed over relation heads."""
    student_logs = log_relation(student, segments)
    teacher_logs = log_relation(teacher, segments)
    return jnp.sum(jnp.exp(teacher_logs) * (teacher_logs - student_logs), axis=(1, 3))


@pytest.mark.parametrize(
    ("dtype", "batch"), [pytest.param(F32, 1, marks=pytest.mark.exhaustive), (F32, 4), (BF16, 3)]
)
def test_kernel_computes_the_plain_divergence(dtype: Any, batch: int) -> None:
    """A step of its grid takes one or two sequences."""
    student = drawn(batch, LENGTH, STUDENT_WIDTH, dtype=dtype)
    teacher = drawn(batch, LENGTH, TEACHER_WIDTH, seed=1, dtype=dtype)
    segment_ids = segments(batch)
    grad_out = drawn(batch, LENGTH, seed=2)
    arrays = (student, teacher, segment_ids)
    out = relations.forward(*arrays, HEADS, interpret=True)
    grad = relations.backward(*arrays, grad_out, HEADS, interpret=True)
    # The divergence is a loss, and its gradient is of the vectors' type.
    assert out.dtype == F32
    assert grad.dtype == dtype
    want, pull = jax.vjp(lambda x: plain(x, teacher.astype(F32), segment_ids), student.astype(F32))
    assert_near((out, grad), (want, *pull(grad_out)), KERNEL_ROUNDING[dtype])


def test_equal_relations_have_no_divergence_and_no_gradient() -> None:
    x = drawn(2, LENGTH, STUDENT_WIDTH)
    segment_ids = segments(2)
    out = relations.forward(x, x, segment_ids, HEADS, interpret=True)
    np.testing.assert_allclose(out, 0, atol=1e-6)
    grad_out = jnp.ones((2, LENGTH))
    grad = relations.backward(x, x, segment_ids, grad_out, HEADS, interpret=True)
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_kernel_takes_large_products() -> None:
    # Products of thirtyfold vectors are 900 times as large: a softmax becomes a choice.
    student = 30 * drawn(1, LENGTH, STUDENT_WIDTH)
    teacher = 30 * drawn(1, LENGTH, TEACHER_WIDTH, seed=1)
    segment_ids = segments(1)
    out = relations.forward(student, teacher, segment_ids, HEADS, interpret=True)
    np.testing.assert_allclose(out, plain(student, teacher, segment_ids), rtol=1e-4, atol=1e-3)
    grad_out = jnp.ones((1, LENGTH))
    grad = relations.backward(student, teacher, segment_ids, grad_out, HEADS, interpret=True)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize(
    ("length", "widths", "heads", "fits"),
    [
        (128, (128, 768), 16, True),
        (128, (768, 1024), 64, False),  # heads of 12 columns
        (256, (128, 768), 16, True),
        (256, (256, 768), 32, False),  # more relations than on-chip memory holds
        (120, (128, 768), 16, False),
        (128, (192, 768), 12, False),
    ],
)
def test_kernel_fits_where_attentions_does_for_both_widths(
    length: int, widths: tuple[int, int], heads: int, fits: bool
) -> None:
    assert relations.fits(length, widths, heads) is fits
