"""The device mesh and where things live on it: batches split over `data`, parameters on every device."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from kdjax.errors import InputError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, `data`, over the given devices (default: all)."""
    devices = list(devices or jax.devices())
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch(batch: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises InputError unless the batch splits evenly over the mesh and, on each device, over the microbatches."""
    devices = mesh.shape["data"]
    if batch % (devices * microbatches):
        parts = f" times {microbatches} microbatches" if microbatches > 1 else ""
        raise InputError(
            f"a batch has {batch} sequences, expected a multiple of the {devices} devices of the mesh{parts}"
        )
