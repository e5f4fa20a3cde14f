"""KL between self-relations as one TPU kernel: R = softmax(X Xᵀ/√d) of a relation head lives in
on-chip memory alone.

For MiniLMv2 (Wang et al. 2021, arXiv 2012.15828). X Xᵀ is symmetric, so a column stands for a row:
the softmax is taken down columns, which a TPU's vector unit adds up fastest. B batch, L length, A
relation heads.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kdjax.kernels import attention
from kdjax.kernels.tiles import ACROSS, ALIKE, DOWN, apart, dot

_APART = -1e30
_BLOCK = 2
"""Sequences of a step of the grid."""


def fits(length: int, widths: tuple[int, int], heads: int) -> bool:
    """Whether the kernel takes such sequences."""
    return all(attention.fits(length, width, heads) for width in widths)


def forward(
    student: jax.Array, teacher: jax.Array, groups: jax.Array, heads: int, interpret: bool = False
) -> jax.Array:
    """KL(R_t‖R_s) of each row, summed over relation heads.

    Args:
        student, teacher: `[B, L, D_s]` and `[B, L, D_t]`, heads side by side.
        groups: int32 `[B, L]`; a row relates to positions of its own group.
        heads: A; it divides both widths.
        interpret: run it as plain JAX, on any device.

    Returns:
        float32 `[B, L]`.
    """
    made = jax.ShapeDtypeStruct((len(student), 1, student.shape[1]), jnp.float32)
    return _call(_forward, [groups[:, None], student, teacher], made, heads, interpret)[:, 0]


def backward(
    student: jax.Array,
    teacher: jax.Array,
    groups: jax.Array,
    gradient: jax.Array,
    heads: int,
    interpret: bool = False,
) -> jax.Array:
    """The gradient with respect to `student`, from that with respect to what `forward` returns."""
    made = jax.ShapeDtypeStruct(student.shape, student.dtype)
    return _call(
        _backward, [groups[:, None], student, teacher, gradient[:, None]], made, heads, interpret
    )


def _call(
    body: Any, arrays: list[jax.Array], made: jax.ShapeDtypeStruct, heads: int, interpret: bool
) -> jax.Array:
    batch, length, width = arrays[1].shape
    block = max(n for n in range(1, _BLOCK + 1) if batch % n == 0)
    other = arrays[2].shape[2]
    products = (width + other, 2 * width)
    result: jax.Array = pl.pallas_call(
        functools.partial(body, heads=heads),
        grid=(batch // block,),
        in_specs=[pl.BlockSpec((block, *x.shape[1:]), lambda i: (i, 0, 0)) for x in arrays],
        out_specs=pl.BlockSpec((block, *made.shape[1:]), lambda i: (i, 0, 0)),
        out_shape=made,
        cost_estimate=pl.CostEstimate(
            flops=2 * batch * length * length * sum(products if len(arrays) == 4 else products[:1]),
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in arrays)
            + made.size * made.dtype.itemsize,
            transcendentals=3 * batch * heads * length * length,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        interpret=interpret,
        name=f"relation_{'forward' if len(arrays) == 3 else 'backward'}",
    )(*arrays)
    return result


def _forward(groups: Any, student: Any, teacher: Any, out: Any, *, heads: int) -> None:
    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(groups[n])
        total = jnp.zeros((1, out.shape[2]), jnp.float32)
        for h in range(heads):
            own, target = (_logarithms(_head(x, n, h, heads), hidden) for x in (student, teacher))
            total += jnp.sum(jnp.exp(target) * (target - own), axis=0, keepdims=True)
        out[n] = total

    jax.lax.fori_loop(0, len(out), sequence, None)


def _backward(
    groups: Any, student: Any, teacher: Any, gradient: Any, out: Any, *, heads: int
) -> None:
    def sequence(n: jax.Array, _: None) -> None:
        hidden = apart(groups[n])
        made = []
        for h in range(heads):
            x = _head(student, n, h, heads)
            own = _logarithms(x, hidden)
            target = _logarithms(_head(teacher, n, h, heads), hidden)
            to_products = (gradient[n] * (jnp.exp(own) - jnp.exp(target))).astype(x.dtype)
            to_x = dot(to_products, x, ACROSS) + dot(to_products, x, DOWN)
            made.append(to_x * (1 / math.sqrt(x.shape[1])))
        out[n] = jnp.concatenate(made, axis=1).astype(out.dtype)

    jax.lax.fori_loop(0, len(out), sequence, None)


def _head(x: Any, n: jax.Array, h: int, heads: int) -> jax.Array:
    d = x.shape[2] // heads
    return x[n, :, h * d : (h + 1) * d]  # type: ignore[no-any-return]


def _logarithms(x: jax.Array, hidden: jax.Array) -> jax.Array:
    """log R of a head, transposed: `[L, L]`, each column a distribution."""
    products = jnp.where(hidden, _APART, dot(x, x, ALIKE) * (1 / math.sqrt(x.shape[1])))
    shifted = products - jnp.max(products, axis=0, keepdims=True)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=0, keepdims=True))
