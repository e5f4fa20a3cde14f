"""Compiled programs, kept between processes in the user's cache directory: what was compiled once
is read again.

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

from kdjax import loglines
from kdjax.files import digest

LIMIT = 2 * 2**30
"""Bytes that all entries together take at most, unless `JAX_COMPILATION_CACHE_MAX_SIZE` says
otherwise."""
_CPU_INFO = Path("/proc/cpuinfo")
_HASH = hashlib.sha256().digest_size


def enable_compilation_cache() -> None:
    """From now on, what this process compiles is kept, and what was kept is not compiled again.

    Entries lie in `$XDG_CACHE_HOME/kdjax/compiled`, or `~/.cache/kdjax/compiled`. A cache that JAX
    was told of before, by `JAX_COMPILATION_CACHE_DIR` or in the program, is left as it is; told of
    an empty one, nothing is kept. Small
    programs are kept too: a study on a CPU has many. Where the directory cannot be used, or others
    may write to it (whoever writes an entry has it run), one line says so, and everything is
    compiled.
    """
    told = jax.config.values["jax_compilation_cache_dir"]
    limit = _limit()
    if told == "":
        # JAX takes it for a directory in places
        jax.config.update("jax_compilation_cache_dir", None)
    if told is not None or limit == 0:
        return
    try:
        directory = _directory()
    except (OSError, RuntimeError) as e:
        loglines.warn(
            f"compiled programs are not kept ({e}); JAX_COMPILATION_CACHE_DIR names another "
            "place, or none"
        )
        return
    _default("jax_persistent_cache_min_compile_time_secs", 0.0)
    _default("jax_persistent_cache_min_entry_size_bytes", -1)
    store = private_store()
    if store is None:
        _default("jax_compilation_cache_max_size", limit)
    else:
        store.get_file_cache = lambda path: (Entries(Path(path), limit), path)  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(directory))


def private_store() -> ModuleType | None:
    """Return JAX's module that opens the store of compiled programs; the only private one that
    kdjax knows.

    None where this JAX has no such module, or one that opens the store in another way.
    """
    try:
        from jax._src import compilation_cache  # noqa: PLC0415
    except ImportError:
        return None
    return (
        compilation_cache if callable(getattr(compilation_cache, "get_file_cache", None)) else None
    )


class Entries:
    """A directory of compiled programs by JAX's keys, for JAX to get and put; nothing wrong with it
    is an error."""

    def __init__(self, directory: Path, limit: int):
        """Opens it.

        Args:
            directory: of this kind of machine, beside those of others.
            limit: bytes that all of them take at most, -1: no limit. What was not used for longest
                is deleted first.
        """
        self._path = directory
        self._limit = limit
        self._size: int | None = None  # of all, as far as this process knows
        self._unwritable = False

    def get(self, key: str) -> bytes | None:
        """An entry, or None where there is none that is whole; a damaged one is deleted."""
        path = self._path / key
        try:
            content = path.read_bytes()
            if hashlib.sha256(content[_HASH:]).digest() == content[:_HASH]:
                with suppress(OSError):
                    os.utime(path)  # it was used now
                return content[_HASH:]
            loglines.warn(f"{path}: a compiled program, damaged; deleted and compiled again")
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as e:
            self._unusable(e)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Adds an entry, whole or not at all."""
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
            self._unusable(e)

    def _unusable(self, error: OSError) -> None:
        if not self._unwritable:
            loglines.warn(f"{self._path}: compiled programs are no longer kept ({error.strerror})")
        self._unwritable = True

    def _make_room(self, size: int) -> None:
        """Deletes entries until one more of this size is within the limit; other processes may do
        so, too."""
        if self._limit < 0:
            return
        if self._size is not None and self._size + size <= self._limit:
            self._size += size
            return
        found = []
        for path in self._path.parent.glob("*/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        self._size = sum(bytes_ for _, bytes_, _ in found) + size
        for _, bytes_, path in sorted(found):
            if self._size <= self._limit:
                break
            path.unlink(missing_ok=True)
            self._size -= bytes_


def _limit() -> int:
    told = os.environ.get("JAX_COMPILATION_CACHE_MAX_SIZE")
    return LIMIT if told is None else int(jax.config.values["jax_compilation_cache_max_size"])


def _default(setting: str, value: float) -> None:
    """Sets a setting of JAX that the environment does not set."""
    if setting.upper() not in os.environ:
        jax.config.update(setting, value)


def _directory() -> Path:
    """The directory of this kind of machine, made where there is none.

    Raises:
        OSError: it cannot be used.
        RuntimeError: the user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    place = (base if base.is_absolute() else Path.home() / ".cache") / "kdjax" / "compiled"
    directory = place / digest(_machine())[:16]
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.mkdir(exist_ok=True, mode=0o700)
    for own in (place, directory):
        stat = own.stat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            raise PermissionError(f"{own} is not this user's alone to write to")
    return directory


def _machine() -> list[str]:
    """What code for this CPU depends on and JAX's key does not hold: its kind and instructions, and
    how many cores XLA splits the work over. Where the system does not list them, the machine's name
    stands for it."""
    kind = [platform.machine(), platform.system()]
    if _CPU_INFO.exists():
        lines = re.findall(
            r"^(?:model name|flags|Features|CPU part)\s*:.*$", _CPU_INFO.read_text(), re.MULTILINE
        )
        kind += sorted(set(lines))
    else:
        kind.append(platform.node())
    affinity = getattr(os, "sched_getaffinity", None)
    kind.append(str(len(affinity(0)) if affinity else os.cpu_count()))
    return kind + [os.environ.get(name, "") for name in ("NPROC", "PJRT_NPROC")]
