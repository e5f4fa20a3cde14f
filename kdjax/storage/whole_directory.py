"""Directories that are made whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdjax.errors import InputError
from kdjax.storage import locks
from kdjax.storage.files import LOCK


@contextmanager
def whole_directory(directory: Path) -> Iterator[Path]:
    """Make a directory whole or not at all: the block fills one beside it, which is then renamed.

    A lock on the directory (`kdjax.storage.locks.hold`) goes over to what replaces it. Whatever
    ends the block by an error, the directory beside it is removed.

    Args:
        directory: directory to make; where it is there, it holds nothing but its lock.

    Yields:
        The directory to fill.

    Raises:
        InputError: it cannot be written, or holds something by then.
    """
    beside = directory.absolute().with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed here
    try:
        beside.mkdir(parents=True)
        yield beside
        # The lock stays, in the new directory; one that is not empty is not replaced.
        locks.carry(directory, beside)
        (directory / LOCK).unlink(missing_ok=True)
        beside.replace(directory)
    except OSError as e:
        raise InputError(
            f"{directory}: cannot be written ({e.strerror}), expected a writable place with room, "
            "and a name that the file system takes"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
