"""Compiled programs, kept between processes in the user's cache directory and read again.

JAX's persistent compilation cache does it
(https://docs.jax.dev/en/latest/persistent_compilation_cache.html), with
files of our own in place of its own: they are written whole or not at all, carry a SHA-256, and are
deleted where it does not match. JAX's own are neither, and one that a kill has cut short stays for
good. There is no public way to give JAX another store; in a JAX whose private one has changed, its
own files are used (`private_store`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import jax

from kdjax.runtime import process_logging
from kdjax.storage.files import digest
from kdjax.storage.paths import user_cache

LIMIT = 2 * 2**30
"""Bytes that all entries together take at most, unless `JAX_COMPILATION_CACHE_MAX_SIZE` says
otherwise."""
CPU_INFO = Path("/proc/cpuinfo")
"""What Linux says of the processor, part of which names the cache's directory."""
_HASH = hashlib.sha256().digest_size


def enable_compilation_cache() -> None:
    """Keep what this process compiles from now on, and read what was kept before.

    Entries lie in `$XDG_CACHE_HOME/kdjax/compiled`, or `~/.cache/kdjax/compiled`. A cache that JAX
    was given before, by `JAX_COMPILATION_CACHE_DIR` or in the program, is left as it is; where that
    is empty, nothing is kept. Small programs are kept too: a study on a CPU has many. Where the
    directory cannot be used, or others may write to it (whoever writes an entry has it run), one
    line says so, and everything is compiled.
    """
    former = jax.config.values["jax_compilation_cache_dir"]
    limit = _limit()
    if former == "":
        # JAX takes it for a directory in places.
        jax.config.update("jax_compilation_cache_dir", None)
    if former is not None or limit == 0:
        return
    try:
        directory = cache_directory()
    except (OSError, RuntimeError) as e:
        reason = getattr(e, "strerror", None) or e
        process_logging.warn(
            f"compiled programs are not kept ({reason}); JAX_COMPILATION_CACHE_DIR names another "
            "place, or none"
        )
        return

    # By default JAX keeps no program that is small or was compiled quickly.
    _set_default("jax_persistent_cache_min_compile_time_secs", 0.0)
    _set_default("jax_persistent_cache_min_entry_size_bytes", -1)
    store = private_store()
    if store is None:
        _set_default("jax_compilation_cache_max_size", limit)
    else:
        store.get_file_cache = lambda path: (  # type: ignore[attr-defined]
            CacheDirectory(Path(path), limit),
            path,
        )
    jax.config.update("jax_compilation_cache_dir", str(directory))


def private_store() -> ModuleType | None:
    """Return the module of JAX that opens the store of compiled programs.

    It is the only private one that kdjax knows. None where this JAX has no such module, or one that
    opens the store in another way.
    """
    try:
        from jax._src import compilation_cache  # noqa: PLC0415
    except ImportError:
        return None
    opens_store = callable(getattr(compilation_cache, "get_file_cache", None))
    if not opens_store:
        return None
    return compilation_cache


class CacheDirectory:
    """A directory of compiled programs by JAX's keys, for JAX to get and put.

    Nothing wrong with it is an error.
    """

    def __init__(self, directory: Path, limit: int):
        """Open it.

        Args:
            directory: directory of this kind of machine, beside those of others.
            limit: bytes that all of them take at most, -1: no limit. The entry that was not used
                for longest is deleted first.
        """
        self._path = directory
        self._limit = limit
        self._total: int | None = None  # bytes of all, as far as this process knows
        self._unwritable = False

    def get(self, key: str) -> bytes | None:
        """Return an entry; None where there is none that is whole. Delete a damaged one."""
        path = self._path / key
        try:
            content = path.read_bytes()
            if hashlib.sha256(content[_HASH:]).digest() == content[:_HASH]:
                with suppress(OSError):
                    os.utime(path)  # it was used now
                return content[_HASH:]
            process_logging.warn(f"{path}: a compiled program, damaged; deleted and compiled again")
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as e:
            self._stop_writing(e)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Add an entry, whole or not at all."""
        content = hashlib.sha256(value).digest() + value
        if self._unwritable or -1 < self._limit < len(content):
            return
        try:
            self._make_room(len(content))
            handle, name = tempfile.mkstemp(dir=self._path, prefix=".")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                Path(name).replace(self._path / key)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as e:
            self._stop_writing(e)

    def _stop_writing(self, error: OSError) -> None:
        """Stop adding entries after a failed write, and warn once."""
        if not self._unwritable:
            reason = error.strerror
            process_logging.warn(f"{self._path}: compiled programs are no longer kept ({reason})")
        self._unwritable = True

    def _make_room(self, size: int) -> None:
        """Delete entries until one more of a size is within the limit.

        Other processes may do so, too.
        """
        if self._limit < 0:
            return
        if self._total is not None and self._total + size <= self._limit:
            self._total += size
            return
        entries = []
        for path in self._path.parent.glob("*/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        self._total = sum(entry_size for _, entry_size, _ in entries) + size
        for _, entry_size, path in sorted(entries):
            if self._total <= self._limit:
                break
            path.unlink(missing_ok=True)
            self._total -= entry_size


def _limit() -> int:
    """Return the bytes that all entries take at most."""
    if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
        return LIMIT
    return int(jax.config.values["jax_compilation_cache_max_size"])


def _set_default(setting: str, value: float) -> None:
    """Set a setting of JAX that the environment does not set."""
    if setting.upper() not in os.environ:
        jax.config.update(setting, value)


def cache_directory() -> Path:
    """Return the cache's directory for this kind of machine, made where there is none.

    Raises:
        OSError: it cannot be used.
        RuntimeError: the user has no home.
    """
    parent = user_cache() / "compiled"
    directory = parent / digest(_machine())[:16]
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.mkdir(exist_ok=True, mode=0o700)
    for path in (parent, directory):
        stat = path.stat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            raise PermissionError(f"{path} is not this user's alone to write to")
    return directory


def _machine() -> list[str]:
    """Return the properties of this CPU that compiled code depends on and JAX's key lacks.

    That is its kind and instructions, and how many cores XLA splits the work over. Where the system
    does not list them, the machine's name stands for it.
    """
    properties = [platform.machine(), platform.system()]
    if CPU_INFO.exists():
        lines = re.findall(
            r"^(?:model name|flags|Features|CPU part)\s*:.*$",
            CPU_INFO.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        properties += sorted(set(lines))
    else:
        properties.append(platform.node())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    properties.append(str(cores))
    return properties + [os.environ.get(name, "") for name in ("NPROC", "PJRT_NPROC")]
