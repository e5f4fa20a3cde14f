"""Places that one writer at a time may use: a lock on a directory of this machine or its network,
a lease in a bucket.

A local lock is the operating system's (`flock` on a file named `.lock` in the directory): the
kernel frees it when the process ends, however it ends. A file that a killed process leaves is no
lock and is taken over. A place at gs:// has no such kernel; `kdjax.storage.leases` has what it has.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, InUse
from kdjax.runtime import process_logging
from kdjax.storage import leases
from kdjax.storage.files import LOCK, check_writable
from kdjax.storage.holder import describe, this_process

_CANNOT_LOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""Errors by which a file system says that it has no locks."""

_held: dict[Path, int] = {}
"""Lock file -> the thread of this process that holds it."""


@contextmanager
def hold(place: Any, part: str = "") -> Iterator[None]:
    """Keep other processes from writing to a place in the block.

    A block inside another one of the same thread that holds the same place holds it already. The
    directory is made where there is none, and removed again if it is empty at the end.

    Args:
        place: a directory, or gs://bucket/path.
        part: name of the part of the place that is held; two parts may be held at once, a part and
            the whole may not. Empty: the whole place.

    Raises:
        InputError: it cannot be written.
        InUse: another process holds it.
    """
    if "://" in str(place):
        with leases.hold(place, _name(part)):
            _check_rest_is_free(place, part)
            yield
        return
    directory = Path(place)
    # Links in a circle are left as they are; making the directory reports them.
    path = Path(os.path.realpath(directory)) / _name(part)
    if _held.get(path) == threading.get_ident():
        yield
        return
    new_directories = _missing_directories(directory)
    try:
        descriptor = _lock(path, directory)
        try:
            _held[path] = threading.get_ident()
            _check_rest_is_free(directory, part)
            yield
        finally:
            del _held[path]
            _unlock(path, descriptor)
    finally:
        _remove_empty(new_directories)


def check_free(directory: Path) -> None:
    """Check that no other process holds a whole directory; nothing is made or held.

    Who starts a moment later may still take it: `hold` decides.

    Args:
        directory: a directory of this machine, which need not be there.

    Raises:
        InUse: another process holds it.
    """
    path = Path(os.path.realpath(directory)) / _name("")
    if path in _held:
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno not in _CANNOT_LOCK:
            raise InUse(
                f"{directory}: {describe(_read(descriptor))}, expected it to end first"
            ) from None
    finally:
        os.close(descriptor)


def carry(directory: Path, new: Path) -> None:
    """Lock a directory that will replace another one as that one is locked, by the same lock.

    Args:
        directory: directory that is replaced; without a lock nothing is done.
        new: directory that will have its name.
    """
    # A file system without hard links leaves the new directory free a moment before its time.
    with suppress(OSError):
        (new / LOCK).hardlink_to(directory / LOCK)


def _name(part: str) -> str:
    """Return the name of a part's lock file."""
    if part:
        return f"{LOCK}.{part}"
    return LOCK


def _check_rest_is_free(place: Any, part: str) -> None:
    """Check that nobody holds the whole of a place, or, for the whole, one of its parts.

    Both a part and the whole are held first and looked at then: of two that start at once, one at
    least sees the other.

    Raises:
        InUse: somebody does.
    """
    rest = LOCK if part else f"{LOCK}.*"
    if "://" in str(place):
        leases.check_free(place, rest)
        return
    directory = Path(place)
    for path in sorted(directory.glob(rest)):
        _unlock(path, _lock(path, directory))


def _lock(path: Path, directory: Path) -> int:
    """Lock a file, made where there is none; return its descriptor.

    Raises:
        InputError: the file cannot be made.
        InUse: another process has locked it.
    """
    while True:
        # Another that has just ended may have removed the directory, too.
        check_writable(directory)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue
        except OSError as e:
            raise InputError(
                f"{path}: cannot be written ({e.strerror}), expected a lock file to write to"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in _CANNOT_LOCK:
                refusal = f"{directory}: {describe(_read(descriptor))}, expected it to end first"
                os.close(descriptor)
                raise InUse(refusal) from None
            process_logging.warn(
                f"{directory}: its file system cannot lock files ({e.strerror}); see to it that "
                "nothing else writes here"
            )
        # One who ended in between has removed the file: a lock on what has no name keeps nobody.
        if _is_same(path, descriptor):
            break
        os.close(descriptor)
    with suppress(OSError):  # on a full disk the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(this_process()).encode(), 0)
    return descriptor


def _unlock(path: Path, descriptor: int) -> None:
    """Remove a lock file, if it is still the one that was locked, and then free it."""
    if _is_same(path, descriptor):
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    """Return whether a path is that of an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _read(descriptor: int) -> Any:
    """Return a lock file's words on its holder; None where it has none yet."""
    try:
        return json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return None


def _missing_directories(directory: Path) -> list[Path]:
    """List a directory and those above it that are not there, the lowest first."""
    return [path for path in (directory, *directory.parents) if not path.exists()]


def _remove_empty(directories: list[Path]) -> None:
    """Remove those directories that are empty."""
    for directory in directories:
        with suppress(OSError):
            directory.rmdir()
