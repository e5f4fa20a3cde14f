"""FLOPs of the Pallas kernels in a traced program, for those whose author noted no cost
estimate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def kernels(traced: core.ClosedJaxpr) -> dict[tuple[str, tuple[tuple[int, ...], ...]], int]:
    """FLOPs of one call of every kernel, by its name and the shapes of its results.

    Counted are the matmuls of the kernel's body, at every point of its grid; of a branch the larger
    side. A kernel with a loop or grid of unknown length is left out.

    Args:
        traced: `jax.jit(program).trace(...).jaxpr`.
    """
    found = {}
    for eqn in _all(traced.jaxpr):
        if eqn.primitive.name != "pallas_call":
            continue
        grid = eqn.params["grid_mapping"].grid
        flops = _matmuls(eqn.params["jaxpr"]) if all(isinstance(n, int) for n in grid) else None
        if flops is not None:
            shapes = tuple(_shape(out) for out in eqn.outvars)
            found[eqn.params["name"], shapes] = math.prod(grid) * flops
    return found


def _all(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Every equation, to any depth, but those inside kernels."""
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.primitive.name != "pallas_call":
            for inner in _inner(eqn):
                yield from _all(inner)


def _inner(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The programs an equation calls."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _matmuls(jaxpr: core.Jaxpr) -> int | None:
    """FLOPs of the matmuls of a kernel's body; None where a loop has no known length."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            total += _dot(eqn)
            continue
        counts = [_matmuls(inner) for inner in _inner(eqn)]
        if None in counts or (eqn.primitive.name == "while" and any(counts)):
            return None
        known = [count for count in counts if count is not None]
        if eqn.primitive.name == "cond":
            total += max(known, default=0)
        else:
            total += (
                sum(known) * eqn.params.get("length", 1)
                if eqn.primitive.name == "scan"
                else sum(known)
            )
    return total


def _dot(eqn: core.JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = _shape(eqn.invars[0])
    width: int = math.prod(left[axis] for axis in contracted)
    return 2 * math.prod(_shape(eqn.outvars[0])) * width


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.aval.shape)
