"""KL between self-relations as one TPU kernel: R = softmax(X Xᵀ/√d) of a relation head lives in
on-chip memory alone.

For MiniLMv2 (Wang et al. 2021, arXiv 2012.15828). X Xᵀ is symmetric, so a column stands for a row:
the softmax is taken down columns, which a TPU's vector unit adds up fastest.

Letters: B batch, L length, D_s and D_t widths of student and teacher, A relation heads, d = D_s / A
or D_t / A width of a relation head; X a head's vectors `[L, d]`; R_s and R_t the relations of
student and teacher `[L, L]`; g the gradient of the loss by each row's KL.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kdjax.models.ops.kernels import attention
from kdjax.models.ops.kernels.tiles import X_Y, X_YT, XT_Y, dot, hidden_pairs, largest_block

_MASKED = -1e30
_BLOCK = 2
"""Sequences of a step of the grid."""
MAX_RELATIONS = 2**20
"""Most elements A L² of a sequence's relations: the compiler keeps something of each head's in
on-chip memory. On v5e 64 heads of 128 and 16 of 256 positions compile, at widths up to 1,024 and
768, and 32 heads of 256 positions do not."""


def fits(length: int, widths: tuple[int, int], heads: int) -> bool:
    """Return whether the kernel takes such sequences: whole tiles that fit into on-chip memory.

    Args:
        length: L.
        widths: D_s and D_t.
        heads: A.
    """
    if heads * length**2 > MAX_RELATIONS:
        return False
    return all(attention.has_whole_tiles(length, width, heads) for width in widths)


def forward(
    student: jax.Array, teacher: jax.Array, segments: jax.Array, heads: int, interpret: bool = False
) -> jax.Array:
    """Compute Σ_heads Σ_j R_t (log R_t − log R_s) of each row, j over its own segment.

    Args:
        student: vectors of the student, heads side by side, `[B, L, D_s]`.
        teacher: vectors of the teacher, heads side by side, `[B, L, D_t]`.
        segments: segment number of each position, int32 `[B, L]`; a row relates to positions of
            its own segment.
        heads: A; it divides both widths.
        interpret: whether it runs as plain JAX, on any device.

    Returns:
        KL(R_t‖R_s) of each row, float32 `[B, L]`.
    """
    result = jax.ShapeDtypeStruct((len(student), 1, student.shape[1]), jnp.float32)
    arrays = [segments[:, None], student, teacher]
    # X Xᵀ of both.
    products = student.shape[2] + teacher.shape[2]
    return _call(_forward, "relation_forward", arrays, result, heads, products, interpret)[:, 0]


def backward(
    student: jax.Array,
    teacher: jax.Array,
    segments: jax.Array,
    grad_out: jax.Array,
    heads: int,
    interpret: bool = False,
) -> jax.Array:
    """Compute the gradient by `student` from the gradient by `forward`'s result.

    For each head dX = (G + Gᵀ) X/√d, where row i of G is g_i times row i of R_s − R_t.

    Args:
        student: vectors of the student, heads side by side, `[B, L, D_s]`.
        teacher: vectors of the teacher, heads side by side, `[B, L, D_t]`.
        segments: segment number of each position, int32 `[B, L]`.
        grad_out: g, float32 `[B, L]`.
        heads: A; it divides both widths.
        interpret: whether it runs as plain JAX, on any device.

    Returns:
        `[B, L, D_s]`, of the type of `student`.
    """
    result = jax.ShapeDtypeStruct(student.shape, student.dtype)
    arrays = [segments[:, None], student, teacher, grad_out[:, None]]
    # X Xᵀ of both again, and two products with the student's X.
    products = 3 * student.shape[2] + teacher.shape[2]
    return _call(_backward, "relation_backward", arrays, result, heads, products, interpret)


def _call(
    body: Callable[..., None],
    name: str,
    arrays: list[jax.Array],
    result: jax.ShapeDtypeStruct,
    heads: int,
    products: int,
    interpret: bool,
) -> jax.Array:
    """Run one of the two kernels over blocks of sequences.

    Args:
        body: `_forward` or `_backward`.
        name: name of the kernel in compiled programs and profiles.
        arrays: segments `[B, 1, L]`, the student's and the teacher's vectors, and any gradient.
        result: shape and type of the result.
        heads: A.
        products: sum, over all matmuls of an `[L, L]` matrix, of their other width; for the cost
            estimate.
        interpret: whether it runs as plain JAX, on any device.
    """
    batch, length, _ = arrays[1].shape
    block = largest_block(batch, _BLOCK)
    moved: list[Any] = [*arrays, result]
    out: jax.Array = pl.pallas_call(
        functools.partial(body, heads=heads),
        grid=(batch // block,),
        in_specs=[pl.BlockSpec((block, *x.shape[1:]), lambda i: (i, 0, 0)) for x in arrays],
        out_specs=pl.BlockSpec((block, *result.shape[1:]), lambda i: (i, 0, 0)),
        out_shape=result,
        cost_estimate=pl.CostEstimate(
            flops=2 * batch * length * length * products,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in moved),
            transcendentals=3 * batch * heads * length * length,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=name,
    )(*arrays)
    return out


def _forward(segments: Any, student: Any, teacher: Any, out: Any, *, heads: int) -> None:
    """Write KL(R_t‖R_s) of each row of a block's sequences, summed over heads."""

    def sequence(n: jax.Array, _: None) -> None:
        masked = hidden_pairs(segments[n])
        divergence = jnp.zeros((1, out.shape[2]), jnp.float32)
        for h in range(heads):
            student_logs = _log_relation(_head(student, n, h, heads), masked)
            teacher_logs = _log_relation(_head(teacher, n, h, heads), masked)
            terms = jnp.exp(teacher_logs) * (teacher_logs - student_logs)
            divergence += jnp.sum(terms, axis=0, keepdims=True)
        out[n] = divergence

    jax.lax.fori_loop(0, len(out), sequence, None)


def _backward(
    segments: Any, student: Any, teacher: Any, grad_out: Any, out: Any, *, heads: int
) -> None:
    """Write dX of a block's sequences, by the formula of `backward`."""

    def sequence(n: jax.Array, _: None) -> None:
        masked = hidden_pairs(segments[n])
        grads = []
        for h in range(heads):
            x = _head(student, n, h, heads)
            student_probs = jnp.exp(_log_relation(x, masked))
            teacher_probs = jnp.exp(_log_relation(_head(teacher, n, h, heads), masked))
            grad_scores = (grad_out[n] * (student_probs - teacher_probs)).astype(x.dtype)
            # X is on both sides of X Xᵀ.
            grad_x = dot(grad_scores, x, X_Y) + dot(grad_scores, x, XT_Y)
            grads.append(grad_x * (1 / math.sqrt(x.shape[1])))
        out[n] = jnp.concatenate(grads, axis=1).astype(out.dtype)

    jax.lax.fori_loop(0, len(out), sequence, None)


def _head(x: Any, n: jax.Array, h: int, heads: int) -> Any:
    """Return X, the vectors of relation head `h` of sequence `n`, `[L, d]`."""
    d = x.shape[2] // heads
    return x[n, :, h * d : (h + 1) * d]


def _log_relation(x: jax.Array, masked: jax.Array) -> jax.Array:
    """Compute log Rᵀ of a head, float32 `[L, L]`: log softmax(X Xᵀ/√d) down unmasked columns."""
    scores = jnp.where(masked, _MASKED, dot(x, x, X_YT) * (1 / math.sqrt(x.shape[1])))
    shifted = scores - jnp.max(scores, axis=0, keepdims=True)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=0, keepdims=True))
