"""Small programs compiled for TPUs, whose text tests read.

`python -m tests.hlo.tpu_programs tests/golden/tpu` writes the texts anew; it needs libtpu and no
TPU.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.hlo import aot

TEXTS = Path(__file__).parents[1] / "golden" / "tpu"
DATA = PartitionSpec("data")
ALL = PartitionSpec()


def read(name: str) -> str:
    """Read the text of a program, as it is kept."""
    return (TEXTS / f"{name}.txt").read_text(encoding="utf-8")


def loop(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Run six layers as one loop, and in each a sum over the batch, which lies on four devices."""

    def layer(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
        activated = jnp.tanh(x @ weight)
        return activated + activated.sum(0), None

    return jax.lax.scan(layer, x, weights)[0]


def branch(x: jax.Array, weight: jax.Array, which: jax.Array) -> jax.Array:
    """Compute two matmuls, or one sum."""
    return jax.lax.cond(which > 0, lambda x: jnp.tanh(x @ weight @ weight), lambda x: x + 1, x)


def until(x: jax.Array, weight: jax.Array, turns: jax.Array) -> jax.Array:
    """Run a loop of a length that only its caller knows."""
    return jax.lax.fori_loop(0, turns, lambda _, x: jnp.tanh(x @ weight), x)


def look_up(table: jax.Array, rows: jax.Array) -> jax.Array:
    """Look up some rows of a table."""
    return table[rows]


def attention(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute scores and probabilities, both of them results."""
    scores = jnp.einsum("BHQD,BHKD->BHQK", query, key)
    return scores, jax.nn.softmax(scores.astype(jnp.float32), -1)


def squares(x: jax.Array, cost: pl.CostEstimate | None = None) -> jax.Array:
    """Multiply each of some matrices by itself, in a Pallas kernel."""

    def square(x: Any, out: Any) -> None:
        out[...] = jnp.dot(x[...], x[...], preferred_element_type=jnp.float32).astype(out.dtype)

    count, rows, columns = x.shape
    block = pl.BlockSpec((None, rows, columns), lambda n: (n, 0, 0))
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    kernel = pl.pallas_call(
        square,
        shape,
        grid=(count,),
        in_specs=[block],
        out_specs=block,
        cost_estimate=cost,
        name="square",
    )
    return kernel(x)


def squares_noted(x: jax.Array) -> jax.Array:
    """Call `squares` with a cost estimate."""
    noted = pl.CostEstimate(
        flops=2 * x.size * x.shape[-1], bytes_accessed=2 * 2 * x.size, transcendentals=0
    )
    return squares(x, noted)


def programs() -> dict[str, tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]]:
    """Return every program, and what it takes."""
    mesh = Mesh(np.array(aot.slice_of("v5e:2x2").devices), ("data",))

    def abstract(
        *shape: int, on: PartitionSpec = ALL, dtype: Any = jnp.bfloat16
    ) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, on))

    def alone(*shape: int) -> jax.ShapeDtypeStruct:
        where = jax.sharding.SingleDeviceSharding(mesh.devices[0])
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=where)

    def fsdp(x: jax.Array, weight: jax.Array) -> jax.Array:
        """Multiply by a weight that lies on four devices, and is gathered first."""
        return x @ jax.lax.with_sharding_constraint(weight, NamedSharding(mesh, ALL))

    number = abstract(dtype=jnp.int32)
    return {
        "loop": (loop, (abstract(512, 1024, on=DATA), abstract(6, 1024, 1024))),
        "branch": (branch, (abstract(512, 512), abstract(512, 512), number)),
        "until": (until, (abstract(512, 512), abstract(512, 512), number)),
        "look_up": (look_up, (abstract(30522, 768), abstract(4096, dtype=jnp.int32))),
        "fsdp": (fsdp, (abstract(4096, 4096, on=DATA), abstract(4096, 8192, on=DATA))),
        "attention": (attention, (abstract(8, 4, 512, 64), abstract(8, 4, 512, 64))),
        "kernel": (squares_noted, (alone(4, 256, 256),)),
        "kernel_without_cost": (squares, (alone(4, 256, 256),)),
    }


def _shortened(text: str) -> str:
    """Strip a text of what nobody reads: kernels' code, layouts of arguments, most of the backend's
    notes, paths."""
    text = re.sub(r'"body":"[^"]*"', '"body":""', text)
    text = re.sub(r", backend_config=\{.*$", _notes, text, flags=re.MULTILINE)
    text = re.sub(
        r", (?:input_output_alias|entry_computation_layout)=.*$",
        "",
        text,
        count=1,
        flags=re.MULTILINE,
    )
    text = re.sub(
        r", frontend_attributes=\{.*?\}\}?(?=, metadata|, backend|$)", "", text, flags=re.MULTILINE
    )
    text = re.sub(r", sharding=\{[^}]*\}(?=, metadata|$)", "", text, flags=re.MULTILINE)
    text = re.sub(r'"/[^"]*/((?:site-packages|tests)/[^"]*)"', r'"\1"', text)
    return re.sub(r"\n{3,}", "\n\n", text)


def _notes(config: re.Match[str]) -> str:
    entries = [
        f'"window_config":{{{cycles}}}'
        for cycles in re.findall(r'"estimated_cycles":"\d+"', config[0])[:1]
    ]
    entries += [
        f"{of}}}"
        for of in re.findall(r'"custom_call_config":\{.*?"needs_layout_passes":true', config[0])
    ]
    return f", backend_config={{{','.join(entries)}}}" if entries else ""


if __name__ == "__main__":
    aot.forbid_accelerators()
    with aot.without_compilation_cache():
        for name, (does, takes) in programs().items():
            text = _shortened(jax.jit(does).lower(*takes).compile().as_text())
            Path(sys.argv[1], f"{name}.txt").write_text(text, encoding="utf-8")
