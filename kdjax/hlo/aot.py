"""Ahead-of-time compiling: devices of a TPU slice that is not there, for which the TPU compiler
(libtpu) compiles all the same.

`forbid_accelerators()` first, before JAX has looked for devices; then `slice_of("v5e:2x4").devices`
go into a mesh like real ones.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from kdjax.errors import InputError
from kdjax.hlo.chips import CHIPS, Chip

LARGEST = 256
"""Chips of a slice at most."""

_FORM = re.compile(r"(?P<chip>\w+):(?P<shape>\d+(?:x\d+){1,2})")
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_SIZES = {"v5e": _FLAT, "v6e": _FLAT, "v4": _SMALL, "v5p": _SMALL, "tpu7x": _SMALL}
"""Slices that Google Cloud makes: all of v5e and v6e, which are 2D tori; of the others, which are
3D, those of less than a cube of 4 x 4 x 4, and then any that is made of cubes
(https://docs.cloud.google.com/tpu/docs: v4, v5e, v5p, v6e, tpu7x)."""
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""With these, libtpu asks no one about a slice, and leaves the TPUs of this machine and their lock
to whoever uses them."""


@dataclass(frozen=True)
class Slice:
    """A TPU slice to compile for.

    Attributes:
        name: name of the topology, for instance v5e:2x4.
        chip: figures of each device.
        chips: number of chips.
        devices: devices that programs are compiled for. They run nothing.
    """

    name: str
    chip: Chip
    chips: int
    devices: tuple[jax.Device, ...]

    @property
    def is_one_host(self) -> bool:
        """Return whether one host has all chips: up to 8 of v5e and v6e, up to 4 of the others.

        libtpu always describes hosts of 4.
        """
        most = 8 if self.name.startswith(("v5e:", "v6e:")) else 4
        return self.chips <= most


def forbid_accelerators() -> None:
    """Keep this process from the machine's accelerators: from now on libtpu only compiles.

    To be called before JAX looks for devices. Whatever uses the machine's TPUs or GPUs is not
    disturbed.
    """
    os.environ.update(_ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")


@contextmanager
def without_compilation_cache() -> Iterator[None]:
    """Keep JAX from storing the block's programs: only a slice can read them again."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it looks at the setting once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def slice_of(topology: str) -> Slice:
    """Make a slice to compile for by its topology.

    Args:
        topology: the chip and the shape of the slice in chips, for instance v5e:2x4 or v5p:2x2x1.

    Raises:
        InputError: there is no such chip or slice, it has more than `LARGEST` chips, or libtpu is
            not installed.
    """
    # v5e:2x4 or v5p:2x2x1
    match = _FORM.fullmatch(topology)
    if match is None:
        raise InputError(
            f"--topology is {topology!r}, expected a chip and a shape, for instance v5e:2x4 or "
            "v5p:2x2x1"
        )
    name = match["chip"]
    if name not in CHIPS:
        raise InputError(
            f"--topology is {topology!r}, expected one of {', '.join(CHIPS)} before the colon"
        )
    shape = tuple(int(side) for side in match["shape"].split("x"))
    _check(topology, name, shape)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "libtpu, which has the TPU compiler, is not installed; expected pip install "
            "'kdjax[tpu]'"
        )
    options: dict[str, object] = {}
    if shape == (1, 1):
        options["chips_per_host_bounds"] = (1, 1, 1)
    # Both cores of a chip are one device, as on a TPU VM.
    if name == "v4":
        options["chip_config_name"] = "megacore"
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except RuntimeError as e:  # or its subclass NotImplementedError
        raise InputError(f"--topology {topology}: libtpu makes no such slice: {e}") from None
    return Slice(topology, CHIPS[name], math.prod(shape), tuple(description.devices))


def _check(topology: str, name: str, shape: tuple[int, ...]) -> None:
    """Raise an InputError unless Google Cloud makes such slices."""
    sizes = _SIZES[name]
    expected = ", ".join(sizes)
    exists = "x".join(map(str, shape)) in sizes
    if sizes is _SMALL:
        expected += " or ascending multiples of 4 (4x4x8)"
        is_cubes = len(shape) == 3 and min(shape) > 0 and not any(side % 4 for side in shape)
        exists = exists or (is_cubes and sorted(shape) == [*shape])
    if not exists or math.prod(shape) > LARGEST:
        raise InputError(
            f"--topology is {topology!r}, expected of {name} {expected}, and at most {LARGEST} "
            "chips"
        )
