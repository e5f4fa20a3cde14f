"""LayerNorm as one TPU kernel: each array is read or written once.

Letters: R rows, D width; x a row, μ and σ² its mean and variance over D, r = 1/√(σ² + ε),
x̂ = (x − μ) r; γ scale, β bias; ⊙ an elementwise product; dX the gradient of the loss by X.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kdjax.models.ops.kernels.tiles import LANES, largest_block

TILE_ROWS = 16
BLOCK_BYTES = 1 << 20
"""Bytes of one array in a step of the kernel's grid."""


def fits(rows: int, width: int) -> bool:
    """Return whether the kernel takes an array `[rows, width]`: whole tiles."""
    return rows % TILE_ROWS == 0 and width % LANES == 0


def forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, interpret: bool = False
) -> jax.Array:
    """Compute y = γ ⊙ x̂ + β of each row, with statistics in float32.

    Args:
        x: `[R, D]`.
        scale: γ, `[D]`.
        bias: β, `[D]`.
        epsilon: ε.
        interpret: whether it runs as plain JAX, on any device.

    Returns:
        `[R, D]`, of the type of `x`.
    """
    body = functools.partial(_forward, epsilon=epsilon)
    out: jax.Array = _call(body, [x], [scale, bias], [x], interpret, "layer_norm_forward")[0]
    return out


def backward(
    x: jax.Array, scale: jax.Array, grad_out: jax.Array, epsilon: float, interpret: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute the gradients by x, scale and bias from the gradient by `forward`'s result.

    With g = γ ⊙ dy: dx = r (g − mean(g) − x̂ ⊙ mean(g ⊙ x̂)), dγ = Σ_rows dy ⊙ x̂, dβ = Σ_rows dy.

    Args:
        x: `[R, D]`.
        scale: γ, `[D]`.
        grad_out: dy, `[R, D]`.
        epsilon: ε.
        interpret: whether it runs as plain JAX, on any device.

    Returns:
        dx `[R, D]`, of the type of `x`, and dγ and dβ, float32 `[1, D]`.
    """
    sums = jax.ShapeDtypeStruct((1, x.shape[1]), jnp.float32)
    body = functools.partial(_backward, epsilon=epsilon)
    results = [x, sums, sums]
    grad_x, grad_scale, grad_bias = _call(
        body, [x, grad_out], [scale], results, interpret, "layer_norm_backward"
    )
    return grad_x, grad_scale, grad_bias


def _call(
    body: Callable[..., None],
    arrays: list[Any],
    vectors: list[Any],
    results: list[Any],
    interpret: bool,
    name: str,
) -> Any:
    """Run a kernel over blocks of rows.

    Args:
        body: `_forward` or `_backward`, with its ε.
        arrays: arguments taken block by block, `[R, D]`.
        vectors: arguments taken whole, `[D]`.
        results: shapes and types of the results: `[R, D]`, by blocks, or sums over all rows
            `[1, D]`, which stay in place.
        interpret: whether it runs as plain JAX, on any device.
        name: name of the kernel in compiled programs and profiles.
    """
    rows, width = arrays[0].shape
    limit = BLOCK_BYTES // (width * arrays[0].dtype.itemsize)
    block = largest_block(rows, limit, multiple=TILE_ROWS)
    by_block = pl.BlockSpec((block, width), lambda i: (i, 0))
    in_place = pl.BlockSpec((1, width), lambda i: (0, 0))
    out_specs = []
    moved = [*arrays]
    for result in results:
        if result.shape[0] == rows:
            out_specs.append(by_block)
            moved.append(result)
        else:
            out_specs.append(in_place)
    return pl.pallas_call(
        body,
        grid=(rows // block,),
        in_specs=[by_block] * len(arrays) + [in_place] * len(vectors),
        out_specs=out_specs,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        cost_estimate=pl.CostEstimate(
            flops=8 * len(moved) * rows * width,
            bytes_accessed=sum(x.size * x.dtype.itemsize for x in moved),
            transcendentals=rows,
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        name=name,
    )(*arrays, *(vector[None] for vector in vectors))


def _forward(x: Any, scale: Any, bias: Any, out: Any, *, epsilon: float) -> None:
    """Write γ ⊙ x̂ + β of a block's rows."""
    normalized, _ = _normalize(x[...], epsilon)
    out[...] = (normalized * scale[...] + bias[...]).astype(out.dtype)


def _backward(
    x: Any,
    grad_out: Any,
    scale: Any,
    grad_x: Any,
    grad_scale: Any,
    grad_bias: Any,
    *,
    epsilon: float,
) -> None:
    """Write dx of a block's rows, and add the block's part to dγ and dβ."""

    # Sums stay in place while the grid goes through the rows.
    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        grad_scale[...] = jnp.zeros_like(grad_scale)
        grad_bias[...] = jnp.zeros_like(grad_bias)

    normalized, inverse = _normalize(x[...], epsilon)
    wide_grad = grad_out[...].astype(jnp.float32)
    grad_normalized = wide_grad * scale[...]
    # Statistics depend on every x of a row: the gradient loses its mean, and what lies along the
    # normalized row.
    mean = jnp.mean(grad_normalized, axis=1, keepdims=True)
    along = jnp.mean(grad_normalized * normalized, axis=1, keepdims=True)
    grad_x[...] = (inverse * (grad_normalized - mean - normalized * along)).astype(grad_x.dtype)
    grad_scale[...] += jnp.sum(wide_grad * normalized, axis=0, keepdims=True)
    grad_bias[...] += jnp.sum(wide_grad, axis=0, keepdims=True)


def _normalize(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Return x̂ of each row, float32 `[rows, D]`, and r, `[rows, 1]`."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=1, keepdims=True) + epsilon)
    return centred * inverse, inverse
