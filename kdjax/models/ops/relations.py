"""Self-relations of queries, keys or values X, softmax(X Xᵀ/√d) over positions (MiniLMv2, Wang et
al. 2021, arXiv 2012.15828).

B batch, L length (M: of the columns), H heads, A relation heads, d head width.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops import dispatch
from kdjax.models.ops.attention import AttentionMask
from kdjax.models.ops.heads import merge_heads, split_heads
from kdjax.models.ops.kernels import relations as relations_kernel
from kdjax.models.ops.kl import kl
from kdjax.models.ops.sharding import BATCH_SHARDED, on_each_device


def relation_scores(x: jax.Array, width: int | None = None) -> jax.Array:
    """Compute X Xᵀ/√d over the positions, in float32 or wider.

    Args:
        x: X, `[B, H, L, d]`.
        width: number that stands for d in the scale; None: d.

    Returns:
        `[B, H, L, L]`.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    products = jnp.einsum("BHLd,BHMd->BHLM", x, x, preferred_element_type=wide)
    return products / math.sqrt(width or x.shape[-1])


def relation_kl(
    student: jax.Array, teacher: jax.Array, heads: int, mask: AttentionMask
) -> jax.Array:
    """Compute KL(R_t‖R_s) of each row of the relations R = softmax(X Xᵀ/√d) of A relation heads.

    Args:
        student: X of the student, `[B, H, L, d]`; its heads are joined and split anew.
        teacher: X of the teacher, likewise; no gradient on TPUs.
        heads: A.
        mask: positions that a row relates to.

    Returns:
        `[B, A, L]`, or its mean over the relation heads, `[B, 1, L]`.
    """
    student = merge_heads(student)
    teacher = merge_heads(teacher)
    by_platform = {}
    if relations_kernel.fits(student.shape[1], (student.shape[2], teacher.shape[2]), heads):
        by_platform["tpu"] = by_tpu_kernel
    # Everywhere else what is optimized is the KL.
    form = dispatch.choose(reference, reference, **by_platform)
    return form(student, teacher, heads, mask)


def reference(student: jax.Array, teacher: jax.Array, heads: int, mask: AttentionMask) -> jax.Array:
    """Compute `relation_kl` of `[B, L, D]` from scores `[B, A, L, L]`.

    Its KL is the operation that has an optimized form.
    """
    student_scores = relation_scores(split_heads(student, heads))
    teacher_scores = relation_scores(split_heads(teacher, heads))
    return kl(student_scores, teacher_scores, mask.allowed)


def by_tpu_kernel(
    student: jax.Array, teacher: jax.Array, heads: int, mask: AttentionMask
) -> jax.Array:
    """Compute the mean of `relation_kl` over the heads by a kernel on each TPU."""
    # The kernel sums over the heads.
    return _by_kernel(student, teacher, mask.segments, heads)[:, None] / heads


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _by_kernel(
    student: jax.Array, teacher: jax.Array, segments: jax.Array, heads: int
) -> jax.Array:
    """Compute Σ_heads KL(R_t‖R_s) of each row, `[B, L]`, of X `[B, L, D]` of both models."""
    return _kernel_forward(student, teacher, segments, heads)[0]


def _kernel_forward(
    student: jax.Array, teacher: jax.Array, segments: jax.Array, heads: int
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Return `_by_kernel`'s result, and its arrays for the backward pass, which computes anew."""
    kernel = functools.partial(relations_kernel.forward, heads=heads)
    inputs = (student, teacher, segments)
    divergence: jax.Array = on_each_device(kernel, (BATCH_SHARDED,) * 3, BATCH_SHARDED)(*inputs)
    return divergence, inputs


def _kernel_backward(
    heads: int, residuals: tuple[Any, ...], grad_out: jax.Array
) -> tuple[jax.Array, None, None]:
    """Compute the gradient by the student's X, `[B, L, D]`, by the formula of the kernel; the
    teacher's is none."""
    kernel = functools.partial(relations_kernel.backward, heads=heads)
    sharded = on_each_device(kernel, (BATCH_SHARDED,) * 4, BATCH_SHARDED)
    return sharded(*residuals, grad_out), None, None


_by_kernel.defvjp(_kernel_forward, _kernel_backward)
