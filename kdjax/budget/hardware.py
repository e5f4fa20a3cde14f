"""What the hardware does for a step: executed FLOPs, peak rates, memory, utilisation.

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

from kdjax.budget.jaxpr_count import FlopCountError, count_jaxpr

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
"""Kind of device -> peak teraflops a second of one JAX device, their dtype, and whose figure it is.
TPUs are found by their whole kind, GPUs by the words in it: of several entries whose words all
occur, the one with the most words."""

_MEASURING = 0.5
"""Seconds of matmuls from which a peak is measured."""


@dataclass(frozen=True)
class Peak:
    """The highest rate of dense matmuls that a device reaches.

    Attributes:
        flops_per_second: FLOPs a second of one JAX device.
        dtype: type of the matmuls' factors.
        source: origin of the figure; "measured" where it was found on this machine.
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
    traced program, by the count that checks prices (`kdjax.budget.jaxpr_count`). How often XLA
    writes the same elementwise work into its fusions changes with its version, and in models a few
    dozen wide it doubles the figure, so the copies are left out.

    Args:
        compiled: program as XLA has compiled it, for every device that runs it.
        traced: trace of the same program: `jax.jit(program).trace(...).jaxpr`.
        devices: number of devices that the program runs on.
        repeated: FLOPs of elementwise work on a device that fusions repeat
            (`kdjax.hlo.fusion.repeated_flops`).

    Returns:
        None where XLA gives no count, or one that cannot be right: the program holds a kernel, a
        branch or a loop of unknown length, or the count is less than half of its matmuls, which
        kernels that XLA cannot look into then do.
    """
    # XLA's count of a compiled program is per device.
    flops = (compiled.cost_analysis() or {}).get("flops")
    if flops is None or not math.isfinite(flops) or flops <= 0:
        return None

    # XLA has counted a loop's body once: its other turns are the difference of these two.
    try:
        once = count_jaxpr(traced.jaxpr, "once")
        whole = count_jaxpr(traced.jaxpr, "whole")
    except FlopCountError:
        return None
    other_turns = whole.total - once.total
    total: int = (round(flops) - repeated) * devices + other_turns

    # Less than half of the matmuls: kernels, which XLA counts as nothing, do the rest.
    if 2 * total < whole.matmul:
        return None
    return total


def vendor_peak(kind: str) -> Peak | None:
    """Return the vendor's figure for a kind of device; None for an unknown kind.

    Args:
        kind: `jax.Device.device_kind`.
    """
    words = set(re.split(r"[ -]", kind.upper()))
    entries = [entry for entry in _PEAKS if entry == kind or words.issuperset(entry.split())]
    # A slice of a GPU (MIG) goes by the name of the whole, and does less.
    if not entries or "MIG" in words:
        return None
    entry = max(entries, key=lambda entry: len(entry.split()))
    teraflops, dtype, source = _PEAKS[entry]
    return Peak(teraflops * 1e12, dtype, source)


@cache
def peak(device: jax.Device) -> Peak:
    """Look up the vendor's figure for a device's kind, or measure the peak of an unknown kind.

    Vendors' figures are for dense matmuls in bfloat16, or float16 on GPUs without it. A measured
    one is the best of half a second of float32 matmuls.
    """
    known = vendor_peak(device.device_kind)
    if known is not None:
        return known
    flops_per_second = fastest_matmul(device)
    # CPU devices share the cores of the machine.
    if device.platform == "cpu":
        flops_per_second /= len(jax.local_devices(backend="cpu"))
    return Peak(flops_per_second, "float32", "measured")


def utilisation(flops: float, seconds: float, peak: Peak, devices: int) -> float:
    """Compute the share of the devices' peak that was used, 0 to 1.

    Args:
        flops: FLOPs done by all devices together.
        seconds: the time they took, above 0.
        peak: the peak of one device.
        devices: number of devices.
    """
    return flops / (seconds * peak.flops_per_second * devices)


def memory(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    """Return the compiler's figures of the memory that a program needs on each device, in bytes.

    Returns:
        `arguments`, `outputs`, `aliased` (outputs that take the place of arguments),
        `temporaries`, and `peak`, all of them at once; None where the backend does not say.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    arguments = analysis.argument_size_in_bytes
    outputs = analysis.output_size_in_bytes
    aliased = analysis.alias_size_in_bytes
    temporaries = analysis.temp_size_in_bytes
    return {
        "arguments": arguments,
        "outputs": outputs,
        "aliased": aliased,
        "temporaries": temporaries,
        "peak": arguments + outputs - aliased + temporaries,
    }


def peak_memory() -> tuple[int, str]:
    """Return the most memory that was in use so far, in bytes, and where.

    Returns:
        The figure of the fullest local device where devices keep count, else of this process.
    """
    counts = [
        (device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()
    ]
    if max(counts) > 0:
        return max(counts), "the fullest device"
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, Linux in KiB.
    if sys.platform != "darwin":
        resident *= 1024
    return resident, "the process, resident set"


def fastest_matmul(device: jax.Device) -> float:
    """Measure the best rate of square float32 matmuls of growing size, in FLOPs a second."""
    multiply = jax.jit(jnp.matmul)
    best = 0.0
    spent = 0.0
    ahead = 0.0
    size = 128
    while spent + ahead < _MEASURING:
        square = jax.device_put(jnp.ones((size, size), jnp.float32), device)
        multiply(square, square).block_until_ready()  # compiles
        for _ in range(3):
            started = time.perf_counter()
            multiply(square, square).block_until_ready()
            seconds = time.perf_counter() - started
            best = max(best, 2 * size**3 / seconds)
            spent = spent + seconds
        size *= 2
        # Four matmuls of the next size, at the best rate.
        ahead = 4 * 2 * size**3 / best
    return best
