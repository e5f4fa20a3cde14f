"""Kernels on the devices of a mesh: XLA does not split a kernel's work, so each device is given its
own sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""The axes of a mesh over which a batch is split (`kdjax.config.MeshConfig`)."""
BATCH_SHARDED = PartitionSpec(BATCH_AXES)
"""An array whose first axis is split over the devices that take different sequences."""
REPLICATED = PartitionSpec()
"""An array that every device has."""


def on_each_device(kernel: Callable[..., Any], inputs: Any, outputs: Any) -> Callable[..., Any]:
    """Return a kernel as every device runs it on its own sequences.

    Args:
        kernel: a function of arrays.
        inputs: `BATCH_SHARDED` or `REPLICATED` for each argument.
        outputs: `BATCH_SHARDED` or `REPLICATED` for each result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # Without a mesh, or inside a shard_map, each device is by itself already.
    if mesh.empty or AxisType.Manual in mesh.axis_types:
        return kernel
    sharded: Callable[..., Any] = jax.shard_map(
        kernel, in_specs=inputs, out_specs=outputs, check_vma=False
    )
    return sharded
