"""Kernels on the devices of a mesh: XLA does not split a kernel's work, so each device is given its
own sequences.

The device is that of the mesh under which a program is traced
(`kdjax.parallel.layout.Layout.seen`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

BATCH = ("data", "fsdp")
"""The axes of a mesh over which a batch is split."""
ROWS = PartitionSpec(BATCH)
EACH = PartitionSpec()
"""Arrays split over the devices that take different sequences (`kdjax.config.MeshConfig`), and
arrays they all have."""


def platform() -> str:
    """For which kind of device a program is traced (cpu, gpu, tpu): that of the mesh it sees, or
    JAX's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else str(device.platform)


def layers_are_split() -> bool:
    """Whether an axis of the mesh splits the work of a layer: heads, feed-forward units."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["tensor"] > 1


def on_tpu() -> bool:
    """Whether kernels can be used: on TPUs, where layers are whole."""
    return platform() == "tpu" and not layers_are_split()


def split(kernel: Callable[..., Any], into: Any, out: Any) -> Callable[..., Any]:
    """The kernel on each device, for its own sequences.

    Args:
        kernel: a function of arrays.
        into: `ROWS` or `EACH` for each of its arguments.
        out: the same for what it returns.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:  # each device is by itself already
        return kernel
    made: Callable[..., Any] = jax.shard_map(kernel, in_specs=into, out_specs=out, check_vma=False)
    return made
