"""ArrayRecord shards in a directory that one process at a time fills."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordWriter

from kdjax.data.manifest import Shard
from kdjax.data.text.sources import sha256
from kdjax.errors import InputError

SHARDS = "shards"
"""Where in the directory they lie."""
# Uncompressed: token ids hardly compress, and a record is then read without decompressing. One
# record a group is what random access wants.
WRITER_OPTIONS = "group_size:1,uncompressed"


@contextlib.contextmanager
def held(directory: Path, plan: str, work: str) -> Iterator[None]:
    """Holds a directory, made if there is none, for this process, and clears what a kill left
    half-written in it.

    Args:
        directory: the directory.
        plan: name of the file that is written first.
        work: what is done here, for messages.

    Raises:
        InputError: it cannot be made, or another process holds it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise InputError(
            f"{directory}: cannot be used ({e.strerror}), expected a writable directory"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        half_written = [*directory.glob(f".{plan}.*.tmp"), *(directory / SHARDS).glob(".*.tmp")]
        if (directory / plan).exists():  # then the directory is ours
            half_written += directory.glob(".*.tmp")
        for file in half_written:
            file.unlink(missing_ok=True)
        yield
    except BlockingIOError:
        raise InputError(
            f"{directory}: another process {work} here, expected it to end first"
        ) from None
    finally:
        os.close(handle)


def write_shard(directory: Path, name: str, split: str, records: Iterable[bytes]) -> Shard:
    """Writes `shards/NAME.array_record`, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    file = f"{SHARDS}/{name}.array_record"
    path = directory / file
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        writer = ArrayRecordWriter(str(beside), WRITER_OPTIONS)
        count = 0
        for record in records:
            writer.write(record)
            count += 1
        writer.close()
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        digest = sha256(beside)
        size = beside.stat().st_size
        beside.replace(path)
    except (OSError, RuntimeError) as e:
        raise InputError(
            f"{path}: cannot be written ({e}), expected a writable directory with room"
        ) from None
    return Shard(file, split, count, size, digest)
