"""Memory on CPUs: pages that a step frees stay the process's, for the next step.

XLA's CPU client asks malloc for a step's temporary memory anew in every step, and glibc gives so
large a piece back to the system when it is freed. Then every step faults in all its pages again,
which took a third of a small model's step.
"""

from __future__ import annotations

import ctypes
import os

import jax

_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
"""Parameters of glibc's mallopt (malloc.h)."""
_LARGEST = 2**31 - 1
_MALLOC_SETTINGS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "GLIBC_TUNABLES",
)
"""The environment variables by which people set glibc's malloc."""


def configure_malloc() -> bool:
    """Keep the memory that the main thread frees, and run steps on CPUs on the main thread.

    For programs of their own, before JAX first uses a device; kdjax's commands do it. The process
    keeps the most that it ever used. What the environment says of malloc or of JAX's dispatch holds
    instead.

    Returns:
        Whether it is kept: the C library is glibc, and the environment says nothing of it.
    """
    is_glibc = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
    if not is_glibc or any(name in os.environ for name in _MALLOC_SETTINGS):
        return False
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        # On a thread of JAX's own, malloc would take memory from another arena, which it cannot
        # keep.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _LARGEST))
