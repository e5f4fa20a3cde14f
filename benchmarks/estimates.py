"""Compare the estimated time of single operations, compiled for TPUs, with what a chip allows.

    python -m benchmarks.estimates

The ideal is the longer of FLOPs over the peak and bytes over HBM's bandwidth. Needs libtpu (`pip
install 'kdjax[tpu]'`) and no TPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks import tables
from kdjax.hlo import aot
from kdjax.hlo.estimate import TimeEstimate, estimate

TOPOLOGIES = {"v5e": "v5e:2x2", "v6e": "v6e:2x2", "v5p": "v5p:2x2x1", "tpu7x": "tpu7x:2x2x1"}
BF16 = jnp.bfloat16
F32 = jnp.float32
TOKENS = 16384
WIDTH = 768
HEADS = 12
LENGTH = 128
"""128 sequences of 128 tokens on a device, as in the recipes for eight chips."""


@dataclass(frozen=True)
class Operation:
    """An operation to compile and estimate.

    Attributes:
        name: name in the table.
        function: the operation, as JAX has it.
        arguments: shapes and types of its arguments.
        flops: FLOPs of its matmuls.
        moves: bytes that it has to move; 0: its arguments and its result.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[tuple[tuple[int, ...], Any], ...]
    flops: int = 0
    moves: int = 0


def product(name: str, equation: str, *shapes: tuple[int, ...], dtype: Any = BF16) -> Operation:
    """Return a matmul with float32 sums, rounded to the arguments' type."""
    terms = equation.partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for axes, shape in zip(terms, shapes, strict=True):
        sizes |= zip(axes, shape, strict=True)
    # Every axis is a loop of the product, those that are summed over and those that stay.
    flops = 2 * math.prod(sizes.values())
    arguments = tuple((shape, dtype) for shape in shapes)
    return Operation(name, lambda *x: jnp.einsum(equation, *x), arguments, flops)


def layer_norm(x: jax.Array) -> jax.Array:
    """Normalize the last axis in float32, without parameters."""
    wide = x.astype(F32)
    centred = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-12)).astype(x.dtype)


def softmax(x: jax.Array) -> jax.Array:
    """Compute the softmax over the last axis in float32."""
    return jax.nn.softmax(x.astype(F32), -1).astype(x.dtype)


SCORES = (TOKENS // LENGTH, HEADS, LENGTH, LENGTH)
QUERIES = (TOKENS // LENGTH, HEADS, LENGTH, WIDTH // HEADS)
OPERATIONS = (
    product("matmul 8192 x 8192 x 8192", "MK,KN->MN", (8192, 8192), (8192, 8192)),
    product("matmul 4096 x 4096 x 4096", "MK,KN->MN", (4096, 4096), (4096, 4096)),
    product("matmul 16384 x 768 x 768 (query)", "MK,KN->MN", (TOKENS, WIDTH), (WIDTH, WIDTH)),
    product(
        "matmul 16384 x 768 x 3072 (feed-forward up)",
        "MK,KN->MN",
        (TOKENS, WIDTH),
        (WIDTH, 4 * WIDTH),
    ),
    product(
        "matmul 16384 x 3072 x 768 (feed-forward down)",
        "MK,KN->MN",
        (TOKENS, 4 * WIDTH),
        (4 * WIDTH, WIDTH),
    ),
    product(
        "matmul 768 x 16384 x 3072 (its gradient)",
        "MK,MN->KN",
        (TOKENS, WIDTH),
        (TOKENS, 4 * WIDTH),
    ),
    product("matmul 2560 x 768 x 30522 (vocabulary)", "MK,NK->MN", (2560, WIDTH), (30522, WIDTH)),
    product("1536 matmuls 128 x 64 x 128 (scores)", "BHQD,BHKD->BHQK", QUERIES, QUERIES),
    product("1536 matmuls 128 x 128 x 64 (values)", "BHQK,BHKD->BHQD", SCORES, QUERIES),
    product(
        "matmul 4096 x 4096 x 4096, float32", "MK,KN->MN", (4096, 4096), (4096, 4096), dtype=F32
    ),
    Operation("x + y", lambda x, y: x + y, (((8 * TOKENS, WIDTH), BF16),) * 2),
    Operation("x + y, float32", lambda x, y: x + y, (((8 * TOKENS, WIDTH), F32),) * 2),
    Operation("gelu", lambda x: jax.nn.gelu(x, approximate=False), (((TOKENS, 4 * WIDTH), BF16),)),
    Operation("sum of rows", lambda x: x.astype(F32).sum(-1), (((8 * TOKENS, WIDTH), BF16),)),
    Operation("sum of columns", lambda x: x.astype(F32).sum(0), (((8 * TOKENS, WIDTH), BF16),)),
    Operation("transpose", lambda x: x.T.copy(), (((8 * TOKENS, WIDTH), BF16),)),
    Operation("layer norm", layer_norm, (((8 * TOKENS, WIDTH), BF16),)),
    Operation("softmax of scores", softmax, (((4 * SCORES[0], *SCORES[1:]), BF16),)),
    Operation(
        "embedding of 16384 tokens",
        lambda x, n: x[n],
        (((30522, WIDTH), BF16), ((TOKENS,), jnp.int32)),
        moves=4 * TOKENS * WIDTH,
    ),
)


def ideal(operation: Operation, on: aot.Slice) -> float:
    """Return the seconds that the chip's peak and its memory allow."""
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in operation.arguments]
    # What is read and written once at least.
    result = jax.eval_shape(operation.function, *arguments)
    moved = operation.moves or sum(map(_bytes, (*arguments, result)))
    return max(operation.flops / on.chip.peak.flops_per_second, moved / on.chip.hbm_bandwidth)


def estimated(operation: Operation, on: aot.Slice) -> TimeEstimate:
    """Return the estimated time of what the compiler makes of an operation."""
    # An abstract device of the slice stands in for a chip: nothing is run.
    device = SingleDeviceSharding(on.devices[0])
    arguments = [jax.ShapeDtypeStruct(*of, sharding=device) for of in operation.arguments]
    compiled = jax.jit(operation.function, out_shardings=device).lower(*arguments).compile()
    return estimate(compiled.as_text(), on.chip)


def _bytes(x: Any) -> int:
    return math.prod(x.shape) * x.dtype.itemsize


def main() -> None:
    """Print the table: estimated time over the ideal, what of it is moves, and the ideal."""
    aot.forbid_accelerators()
    slices = {chip: aot.slice_of(topology) for chip, topology in TOPOLOGIES.items()}
    print(tables.head(["operation", *slices]))
    # Programs for another machine have no place in the compile cache.
    with aot.without_compilation_cache():
        for operation in OPERATIONS:
            cells = []
            for on in slices.values():
                time = estimated(operation, on)
                allowed = ideal(operation, on)
                assert time.seconds is not None
                moves = time.by_source["moves"] / allowed
                moving = f", moves {moves:.2f}" if moves else ""
                cells.append(f"{time.seconds / allowed:.2f}{moving} ({1e6 * allowed:.0f} µs)")
            print(tables.row([operation.name, *cells]), flush=True)


if __name__ == "__main__":
    main()
