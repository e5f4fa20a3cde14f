"""What the hardware does for a step: FLOPs really done, peak rates, memory, utilisation.

These figures depend on the machine, and on rematerialisation, kernels and sharding; a price does
not.
"""

from __future__ import annotations

import math
import re
import resource
import sys
import time
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
from jax.extend import core

from kdjax.budget.price import FlopCountError, count_jaxpr

_CLOUD = "Google Cloud's TPU documentation"
_NVIDIA = "NVIDIA's data sheet, without sparsity"

_PEAKS = {
    # A JAX device is a core on v3 and on TPU7x, two to a chip; elsewhere it is a whole chip.
    "TPU v3": (123 / 2, "bfloat16", f"{_CLOUD}, half a chip"),
    "TPU v4": (275, "bfloat16", _CLOUD),
    "TPU v5 lite": (197, "bfloat16", _CLOUD),
    "TPU v5e": (197, "bfloat16", _CLOUD),
    "TPU v5": (459, "bfloat16", _CLOUD),
    "TPU v5p": (459, "bfloat16", _CLOUD),
    "TPU v6 lite": (918, "bfloat16", _CLOUD),
    "TPU v6e": (918, "bfloat16", _CLOUD),
    "TPU7x": (2307 / 2, "bfloat16", f"{_CLOUD}, half a chip"),
    "V100 SXM2": (125, "float16", _NVIDIA),
    "V100 SXM3": (125, "float16", _NVIDIA),
    "V100 PCIE": (112, "float16", _NVIDIA),
    "V100S": (130, "float16", _NVIDIA),
    "T4": (65, "float16", _NVIDIA),
    "A10": (125, "bfloat16", _NVIDIA),
    "A30": (165, "bfloat16", _NVIDIA),
    "A100": (312, "bfloat16", _NVIDIA),
    "L4": (121, "bfloat16", _NVIDIA),
    "L40S": (362, "bfloat16", _NVIDIA),
    "H100 HBM3": (989, "bfloat16", _NVIDIA),
    "H100 NVL": (835, "bfloat16", _NVIDIA),
    "H100 PCIE": (756, "bfloat16", _NVIDIA),
    "H200": (989, "bfloat16", _NVIDIA),
    "H200 NVL": (835, "bfloat16", _NVIDIA),
}
"""Teraflops a second of a JAX device. TPUs by their whole kind, GPUs by words in it: the entry with
the most counts."""

_MEASURING = 0.5
"""Seconds of matmuls from which a peak is measured."""


@dataclass(frozen=True)
class Peak:
    """The most a device can do.

    Attributes:
        flops_per_second: of one JAX device, dense matmuls.
        dtype: of the matmuls.
        source: whose figure it is; "measured" where it was found on this machine.
    """

    flops_per_second: float
    dtype: str
    source: str


def hardware_flops(
    compiled: jax.stages.Compiled, traced: core.ClosedJaxpr, devices: int, *, repeated: int = 0
) -> int | None:
    """Count the FLOPs that all devices together do in one run of a compiled program.

    The count is XLA's of what it compiled, less what its fusions repeat, times the devices: what is
    rematerialised or computed on every device counts each time, what XLA optimised away does not.
    XLA counts the body of a loop once, so what the loops do in their other turns is added from the
    traced program, by the count that checks prices (`kdjax.budget.price.count_jaxpr`). How often
    XLA writes the same elementwise work into its fusions changes with its version, and in models a
    few dozen wide it doubles the figure, so the copies are left out.

    Args:
        compiled: the program, compiled.
        traced: the same program, traced: `jax.jit(program).trace(...).jaxpr`.
        devices: number of devices that it runs on.
        repeated: FLOPs of elementwise work on a device that fusions repeat
            (`kdjax.hlo.fusion.repeated_flops`).

    Returns:
        None where XLA gives no count, or one that cannot be right: the program holds a kernel, a
        branch or a loop of unknown length, or the count is less than half of its matmuls, which
        kernels that XLA cannot look into then do.
    """
    flops = (compiled.cost_analysis() or {}).get("flops")
    if flops is None or not math.isfinite(flops) or flops <= 0:
        return None
    try:
        once = count_jaxpr(traced.jaxpr, "once")
        whole = count_jaxpr(traced.jaxpr, "whole")
    except FlopCountError:
        return None
    total = (round(flops) - repeated) * devices + whole.total - once.total
    return total if 2 * total >= whole.matmul else None


def makers_peak(kind: str) -> Peak | None:
    """The maker's figure for a kind of device (`jax.Device.device_kind`); None for a kind that is
    not known."""
    known = _known(kind)
    if known is None:
        return None
    teraflops, dtype, source = _PEAKS[known]
    return Peak(teraflops * 1e12, dtype, source)


@cache
def peak(device: jax.Device) -> Peak:
    """The peak of a device: the maker's figure for its kind, or, for a kind that is not known, a
    measured one.

    Makers' figures are for dense matmuls in bfloat16, or float16 on GPUs without it. A measured one
    is the best of some float32 matmuls, half a second of them. CPU devices share the cores of the
    machine, so each has its part of them.
    """
    if known := makers_peak(device.device_kind):
        return known
    sharing = len(jax.local_devices(backend="cpu")) if device.platform == "cpu" else 1
    return Peak(_fastest_matmul(device) / sharing, "float32", "measured")


def utilisation(flops: float, seconds: float, peak: Peak, devices: int) -> float:
    """Share of what the devices could have done, 0 to 1.

    Args:
        flops: done by all devices together.
        seconds: in this time, above 0.
        peak: of one device.
        devices: how many.
    """
    return flops / (seconds * peak.flops_per_second * devices)


def memory(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    """What a compiled program needs on each device, by the compiler's own figures, in bytes.

    Returns: `arguments`, `outputs`, `aliased` (outputs that take the place of arguments),
        `temporaries`, and `peak`, all of them at once; None where the backend does not say.
    """
    found = compiled.memory_analysis()
    if found is None:
        return None
    arguments = found.argument_size_in_bytes
    outputs = found.output_size_in_bytes
    aliased = found.alias_size_in_bytes
    temporaries = found.temp_size_in_bytes
    return {
        "arguments": arguments,
        "outputs": outputs,
        "aliased": aliased,
        "temporaries": temporaries,
        "peak": arguments + outputs - aliased + temporaries,
    }


def high_water() -> tuple[int, str]:
    """The most memory in use so far: bytes, and of what.

    Returns:
        Of the fullest local device where devices keep count; elsewhere of this process.
    """
    counts = [
        (device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()
    ]
    if max(counts) > 0:
        return max(counts), "the fullest device"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS has bytes, Linux KiB
    return (
        most if sys.platform == "darwin" else 1024 * most,
        "the process, resident set",
    )


def _known(kind: str) -> str | None:
    """The entry of `_PEAKS` for a kind of device."""
    if kind in _PEAKS:
        return kind
    words = set(re.split(r"[ -]", kind.upper()))
    if "MIG" in words:  # a slice of a GPU goes by the name of the whole
        return None
    fitting = [entry for entry in _PEAKS if words.issuperset(entry.split())]
    return max(fitting, key=lambda entry: len(entry.split()), default=None)


def _fastest_matmul(device: jax.Device) -> float:
    """The best rate among square float32 matmuls of growing size, in FLOPs a second."""
    multiply = jax.jit(jnp.matmul)
    best = 0.0
    spent = 0.0
    size = 128
    while spent + (4 * 2 * size**3 / best if best else 0.0) < _MEASURING:
        square = jax.device_put(jnp.ones((size, size), jnp.float32), device)
        multiply(square, square).block_until_ready()  # compiles
        for _ in range(3):
            started = time.perf_counter()
            multiply(square, square).block_until_ready()
            seconds = time.perf_counter() - started
            best = max(best, 2 * size**3 / seconds)
            spent = spent + seconds
        size *= 2
    return best
