"""The machine that figures were measured on, and how much of it a benchmark may use."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from kdjax.errors import InputError


def threads() -> int:
    """The cores this process may use: as many threads as XLA takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def restrict(cores: int | None) -> int:
    """Keeps this process to some of its cores, if asked; before JAX is first used. Returns how many
    it may use.

    Raises:
        InputError: fewer than one, more than there are, or a system that cannot do it.
    """
    if cores is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise InputError(
                "--threads: this system cannot keep a process to some cores, expected Linux"
            )
        mine = sorted(os.sched_getaffinity(0))
        if not 1 <= cores <= len(mine):
            raise InputError(f"--threads is {cores}, expected 1 to {len(mine)}")
        os.sched_setaffinity(0, mine[:cores])
    return threads()


def describe() -> dict[str, Any]:
    """Processor, device, versions, settings that change speed, and how busy the machine is."""
    device = jax.devices()[0]
    return {
        "device": f"{device.device_kind} x{jax.device_count()}",
        "processor": _processor(),
        "cores used": f"{threads()} of {os.cpu_count()}",
        **{name: metadata.version(name) for name in ("jax", "flax", "torch")},
        "python": platform.python_version(),
        "settings": {
            name: os.environ[name]
            for name in (
                "GLIBC_TUNABLES",
                "XLA_FLAGS",
                "OMP_NUM_THREADS",
                "OMP_WAIT_POLICY",
                "MALLOC_ARENA_MAX",
            )
            if name in os.environ
        },
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
