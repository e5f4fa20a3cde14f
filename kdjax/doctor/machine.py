"""Cores, memory, file handles, disks, and the cache of compiled programs."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from kdjax.doctor.finding import Finding, State
from kdjax.errors import InputError
from kdjax.storage.files import check_writable
from kdjax.storage.paths import user_cache

LEAST_MEMORY = 2 * 2**30
"""Bytes of memory below which a demo-sized study may be killed."""
LEAST_DISK = 2**30
"""Free bytes below which a study may not end: checkpoints, prepared text, compiled programs."""
LEAST_HANDLES = 256
"""Files that a process should be able to open: shards, checkpoints and event files at once."""
MEMORY_FILE = Path("/proc/meminfo")


def machine() -> Iterator[Finding]:
    """Yield cores, memory and file handles."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    yield Finding("cores", "ok", f"{cores}")
    memory = available_memory()
    if memory is not None:
        is_little = memory < LEAST_MEMORY
        advice = "end other programs, or take smaller batches" if is_little else ""
        state: State = "note" if is_little else "ok"
        yield Finding("memory", state, f"{memory / 2**30:.1f} GiB available", advice)
    handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if handles != resource.RLIM_INFINITY and handles < LEAST_HANDLES:
        yield Finding("file handles", "note", f"{handles} at once", f"ulimit -n {LEAST_HANDLES}")


def available_memory() -> int | None:
    """Return the bytes of memory that programs may still take; None where Linux does not say."""
    if not MEMORY_FILE.exists():
        return None
    match = re.search(r"^MemAvailable:\s*(\d+) kB", MEMORY_FILE.read_text(), re.MULTILINE)
    if not match:
        return None
    return int(match[1]) * 1024


def disks(out: Path | None) -> Iterator[Finding]:
    """Yield whether results and the cache can be written, and the room there is.

    Args:
        out: directory that results are to be written to; None: it is not asked about.
    """
    if out is not None:
        yield _place("--out", out)
    try:
        yield _place("cache", user_cache())
    except RuntimeError:
        advice = "set XDG_CACHE_HOME to a directory, or compiled programs are not kept"
        yield Finding("cache", "note", "the user has no home", advice)


def compilation_cache() -> Finding:
    """Return whether compiled programs are kept, and where."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is not None:
        text = (
            f"{chosen} (JAX_COMPILATION_CACHE_DIR)" if chosen else "none, as the environment says"
        )
        return Finding("compiled programs", "ok", text)
    try:
        from kdjax.storage.compiled_programs import cache_directory  # noqa: PLC0415 - JAX may be what is missing

        directory = cache_directory()
        size = sum(path.stat().st_size for path in directory.parent.glob("*/*"))
    except ImportError as e:
        return Finding("compiled programs", "problem", f"JAX cannot be imported: {e}")
    except (OSError, RuntimeError) as e:
        reason = getattr(e, "strerror", None) or e
        advice = "every command compiles anew; JAX_COMPILATION_CACHE_DIR names another place"
        return Finding("compiled programs", "note", f"are not kept ({reason})", advice)
    return Finding("compiled programs", "ok", f"{size / 2**20:.0f} MiB in {directory.parent}")


def _place(name: str, directory: Path) -> Finding:
    """Return whether a directory, or the one it would be made in, can be written, and its room."""
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise InputError("is no directory")
        check_writable(existing)
    except InputError as e:
        return Finding(name, "problem", f"{directory}: {e}", "name another place")
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GiB free at {directory}"
    if free < LEAST_DISK:
        return Finding(name, "problem", text, f"make room: {LEAST_DISK / 2**30:.0f} GiB or more")
    return Finding(name, "ok", text)
