"""LayerNorm as one TPU kernel: each array is read or written once. R rows, D width."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kdjax.kernels.tiles import LANES

ROWS = 16
_BLOCK_BYTES = 1 << 20


def fits(rows: int, width: int) -> bool:
    """Whether the kernel takes such an array: whole tiles of it."""
    return rows % ROWS == 0 and width % LANES == 0


def forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, interpret: bool = False
) -> jax.Array:
    """LayerNorm of each row of `[R, D]`, with statistics in float32."""
    made: jax.Array = _call(
        functools.partial(_forward, epsilon=epsilon),
        [x],
        [scale, bias],
        [x],
        interpret,
        "layer_norm_forward",
    )[0]
    return made


def backward(
    x: jax.Array, scale: jax.Array, gradient: jax.Array, epsilon: float, interpret: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients with respect to x `[R, D]` and, float32 `[1, D]`, to scale and bias."""
    sums = jax.ShapeDtypeStruct((1, x.shape[1]), jnp.float32)
    body = functools.partial(_backward, epsilon=epsilon)
    made = _call(body, [x, gradient], [scale], [x, sums, sums], interpret, "layer_norm_backward")
    return made[0], made[1], made[2]


def _call(
    body: Any, arrays: list[Any], vectors: list[Any], made: list[Any], interpret: bool, name: str
) -> Any:
    """A kernel over blocks of rows. Of what it makes, arrays come block by block; sums over all
    rows stay in place."""
    rows, width = arrays[0].shape
    most = max(ROWS, _BLOCK_BYTES // (width * arrays[0].dtype.itemsize))
    block = max(n for n in range(ROWS, most + 1, ROWS) if rows % n == 0)
    whole = pl.BlockSpec((1, width), lambda i: (0, 0))
    part = pl.BlockSpec((block, width), lambda i: (i, 0))
    moved = [*arrays, *(x for x in made if len(x.shape) == 2 and x.shape[0] == rows)]
    return pl.pallas_call(
        body,
        grid=(rows // block,),
        in_specs=[part] * len(arrays) + [whole] * len(vectors),
        out_specs=[part if x.shape[0] == rows else whole for x in made],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in made],
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
    normal, _ = _normalised(x[...], epsilon)
    out[...] = (normal * scale[...] + bias[...]).astype(out.dtype)


def _backward(
    x: Any, gradient: Any, scale: Any, to_x: Any, to_scale: Any, to_bias: Any, *, epsilon: float
) -> None:
    @pl.when(pl.program_id(0) == 0)
    def _() -> None:
        to_scale[...] = jnp.zeros_like(to_scale)
        to_bias[...] = jnp.zeros_like(to_bias)

    normal, inverse = _normalised(x[...], epsilon)
    wide = gradient[...].astype(jnp.float32)
    scaled = wide * scale[...]
    common = jnp.mean(scaled, axis=1, keepdims=True)
    along = jnp.mean(scaled * normal, axis=1, keepdims=True)
    to_x[...] = (inverse * (scaled - common - normal * along)).astype(to_x.dtype)
    to_scale[...] += jnp.sum(wide * normal, axis=0, keepdims=True)
    to_bias[...] += jnp.sum(wide, axis=0, keepdims=True)


def _normalised(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """The rows with mean 0 and variance 1, and the inverse of their standard deviations."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=1, keepdims=True) + epsilon)
    return centred * inverse, inverse
