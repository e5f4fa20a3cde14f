"""Which form of an operation is traced, and for which devices: the one place that knows.

The reference form of an operation is its mathematics in plain JAX, differentiated by JAX. The FLOP
counter (`kdjax.budget.price`) traces it, so that what makes a step fast never moves a price.
Everything else traces the optimized form, which has a backward pass of its own, or a kernel for the
platform. All forms give the same results but for rounding, the same dropped units included.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# JAX's caches take it into account: a function traced in one form is traced anew in the other.
_REFERENCE = jax.make_user_context(False)


def trace_reference() -> AbstractContextManager[None]:
    """Return a context in which operations are traced in their reference form."""
    context: AbstractContextManager[None] = _REFERENCE(True)
    return context


def is_reference_traced() -> bool:
    """Return whether operations are traced in their reference form."""
    return bool(_REFERENCE.value)


def choose(
    reference: Callable[P, R], optimized: Callable[P, R], **by_platform: Callable[P, R]
) -> Callable[P, R]:
    """Return the form of an operation to trace here.

    Args:
        reference: the form that is priced.
        optimized: the form that runs on every platform.
        by_platform: kernels of a platform (`tpu=`, `gpu=`) that take the arrays at hand. Where a
            mesh splits the work of a layer none is chosen.
    """
    if is_reference_traced():
        return reference
    if layers_are_split():
        return optimized
    return by_platform.get(platform(), optimized)


def platform() -> str:
    """Return the platform a program is traced for (cpu, gpu, tpu).

    It is that of the mesh in context (`kdjax.parallel.layout.Layout.mesh_context`), or JAX's
    default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    return str(device.platform)


def layers_are_split() -> bool:
    """Return whether an axis of the mesh splits the work of a layer: heads, feed-forward units."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["tensor"] > 1


def on_tpu() -> bool:
    """Return whether a program is traced for TPUs of which each has whole layers."""
    return platform() == "tpu" and not layers_are_split()
