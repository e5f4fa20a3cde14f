"""FLOPs of the Pallas kernels in a traced program, for those whose author noted no cost
estimate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core

from kdjax.budget.jaxpr_count import dot_flops


def kernel_flops(traced: core.ClosedJaxpr) -> dict[tuple[str, tuple[tuple[int, ...], ...]], int]:
    """Count the FLOPs of one call of every kernel, by its name and the shapes of its results.

    Counted are the matmuls of the kernel's body, at every point of its grid; of a branch the larger
    side. A kernel with a loop or grid of unknown length is left out.

    Args:
        traced: `jax.jit(program).trace(...).jaxpr`.
    """
    flops_of = {}
    for eqn in _equations(traced.jaxpr):
        if eqn.primitive.name != "pallas_call":
            continue
        grid = eqn.params["grid_mapping"].grid
        body_flops = _matmuls(eqn.params["jaxpr"])
        if body_flops is None or not all(isinstance(points, int) for points in grid):
            continue
        results: list[Any] = [result.aval for result in eqn.outvars]
        shapes = tuple(tuple(result.shape) for result in results)
        flops_of[eqn.params["name"], shapes] = math.prod(grid) * body_flops
    return flops_of


def _equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yield every equation, to any depth, but those inside kernels."""
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.primitive.name != "pallas_call":
            for inner in core.jaxprs_in_params(eqn.params):
                yield from _equations(inner)


def _matmuls(jaxpr: core.Jaxpr) -> int | None:
    """Count the FLOPs of the matmuls of a kernel's body; None where a loop has no known length."""
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            total += dot_flops(eqn)
            continue
        counts = []
        for inner in core.jaxprs_in_params(eqn.params):
            flops = _matmuls(inner)
            if flops is None:
                return None
            counts.append(flops)
        # A while loop without matmuls may have any length.
        if name == "while" and any(counts):
            return None
        if name == "cond":
            total += max(counts, default=0)
        elif name == "scan":
            total += sum(counts) * eqn.params["length"]
        else:
            total += sum(counts)
    return total
