"""The machine that figures were measured on, and how much of it a benchmark may use."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from kdjax.errors import InputError

SETTINGS = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MALLOC_ARENA_MAX")
"""Environment variables that change speed."""


def threads() -> int:
    """Return how many cores this process may use: XLA takes as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def restrict(cores: int | None) -> int:
    """Keep this process to some of its cores, if asked, and return how many it may use.

    To be called before JAX is first used.

    Raises:
        InputError: fewer than one, more than there are, or a system that cannot do it.
    """
    if cores is not None:
        # Threads that exist already keep their cores, and so this comes before all else.
        if not hasattr(os, "sched_setaffinity"):
            raise InputError(
                "--threads: this system cannot keep a process to some cores, expected Linux"
            )
        allowed = sorted(os.sched_getaffinity(0))
        if not 1 <= cores <= len(allowed):
            raise InputError(f"--threads is {cores}, expected 1 to {len(allowed)}")
        os.sched_setaffinity(0, allowed[:cores])
    return threads()


def describe() -> dict[str, Any]:
    """Describe processor, device, versions, settings that change speed, and the machine's load."""
    device = jax.devices()[0]
    return {
        "device": f"{device.device_kind} x{jax.device_count()}",
        "processor": _processor(),
        "cores used": f"{threads()} of {os.cpu_count()}",
        **{name: metadata.version(name) for name in ("jax", "flax", "torch")},
        "python": platform.python_version(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        # How busy the machine is says what wall-clock figures are worth.
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    """Return the processor's name: Linux has it in a file, other systems by `platform`."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
