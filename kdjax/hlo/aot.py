"""Ahead of time: devices of a TPU slice that is not there, for which the TPU compiler (libtpu)
compiles all the same.

`offline()` first, before JAX has looked for devices; then `slice_of("v5e:2x4").devices` go into a
mesh like real ones.
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
_FLAT = {(1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)}
_SMALL = {(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)}
"""Slices that Google Cloud makes: all of v5e and v6e; of the others those of less than a cube of 4
x 4 x 4, and then any that is made of cubes (https://docs.cloud.google.com/tpu/docs: v4, v5e, v5p,
v6e, tpu7x)."""
_TORUS = {"v5e": 2, "v6e": 2, "v4": 3, "v5p": 3, "tpu7x": 3}
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""libtpu asks no one about a slice, and leaves TPUs that are here, and their lock, to whoever uses
them."""


@dataclass(frozen=True)
class Slice:
    """A slice of a TPU.

    Attributes:
        name: for instance v5e:2x4.
        chip: what each device can do.
        chips: how many chips there are.
        devices: to compile for. They run nothing.
    """

    name: str
    chip: Chip
    chips: int
    devices: tuple[jax.Device, ...]


def offline() -> None:
    """From now on, this process uses no accelerator of this machine, and libtpu only compiles.

    Before JAX looks for devices. Whatever uses the machine's TPUs or GPUs is not disturbed.
    """
    os.environ.update(_ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")


@contextmanager
def uncached() -> Iterator[None]:
    """In the block, JAX keeps nothing of what it compiles: what is made for a slice can be read
    again on one alone."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it looks at the setting once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def slice_of(topology: str) -> Slice:
    """A slice by its topology.

    Args:
        topology: the chip and the shape of the slice in chips, for instance v5e:2x4 or v5p:2x2x1.

    Raises:
        InputError: there is no such chip or slice, it has more than `LARGEST` chips, or libtpu is
            not installed.
    """
    found = _FORM.fullmatch(topology)
    if found is None:
        raise InputError(
            f"--topology is {topology!r}, expected a chip and a shape, for instance v5e:2x4 or "
            "v5p:2x2x1"
        )
    if found["chip"] not in CHIPS:
        raise InputError(
            f"--topology is {topology!r}, expected one of {', '.join(CHIPS)} before the colon"
        )
    kind = CHIPS[found["chip"]]
    shape = tuple(int(n) for n in found["shape"].split("x"))
    _check(topology, found["chip"], shape)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "libtpu, which has the TPU compiler, is not installed; expected pip install "
            "'kdjax[tpu]'"
        )
    options: dict[str, object] = {}
    if shape == (1, 1):
        options["chips_per_host_bounds"] = (1, 1, 1)
    if found["chip"] == "v4":
        options["chip_config_name"] = (
            "megacore"  # both cores of a chip are one device, as on a TPU VM
        )
    try:
        made = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except (RuntimeError, NotImplementedError) as e:
        raise InputError(f"--topology {topology}: libtpu makes no such slice: {e}") from None
    return Slice(topology, kind, math.prod(shape), tuple(made.devices))


def _check(topology: str, name: str, shape: tuple[int, ...]) -> None:
    """Raises InputError unless there are such slices."""
    cubes = all(side % 4 == 0 and side > 0 for side in shape) and tuple(sorted(shape)) == shape
    if _TORUS[name] == 2:
        there_is = shape in _FLAT
        shapes = ", ".join("x".join(map(str, one)) for one in sorted(_FLAT))
    else:
        there_is = len(shape) == 3 and (shape in _SMALL or cubes)
        shapes = (
            ", ".join("x".join(map(str, one)) for one in sorted(_SMALL))
            + " or ascending multiples of 4 (4x4x8)"
        )
    if not there_is or math.prod(shape) > LARGEST:
        raise InputError(
            f"--topology is {topology!r}, expected of {name} {shapes}, and at most {LARGEST} chips"
        )
