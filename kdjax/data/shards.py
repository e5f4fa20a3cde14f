"""ArrayRecord shards in a directory that one process at a time fills."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from kdjax.data.manifest import Shard
from kdjax.errors import InputError
from kdjax.storage import locks
from kdjax.text.streams import sha256

SHARDS = "shards"
"""Subdirectory of the shards."""
# Uncompressed: token ids hardly compress, and a record is then read without decompressing. One
# record a group is what random access wants.
WRITER_OPTIONS = "group_size:1,uncompressed"


@contextlib.contextmanager
def lock_shards(directory: Path, plan: str) -> Iterator[None]:
    """Keep other processes from filling a directory in the block.

    The directory is made if there is none, and what a kill left half-written in it is cleared.

    Args:
        directory: directory to be filled by this process alone.
        plan: name of the file that is written first.

    Raises:
        InputError: it cannot be made.
        InUse: another process holds it.
    """
    with locks.hold(directory):
        half_written = [*directory.glob(f".{plan}.*.tmp"), *(directory / SHARDS).glob(".*.tmp")]
        # Without a plan the directory may be somebody else's: then only our own names are cleared.
        if (directory / plan).exists():
            half_written += directory.glob(".*.tmp")
        for file in half_written:
            file.unlink(missing_ok=True)
        yield


def write_shard(directory: Path, name: str, split: str, records: Iterable[bytes]) -> Shard:
    """Write `shards/NAME.array_record`, whole or not at all.

    Args:
        directory: directory of the corpus or the cache.
        name: name of the shard.
        split: split that the shard belongs to.
        records: its records, as bytes.

    Raises:
        InputError: it cannot be written.
    """
    file = f"{SHARDS}/{name}.array_record"
    path = directory / file
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        writer = ArrayRecordWriter(str(temporary), WRITER_OPTIONS)
        count = 0
        for record in records:
            writer.write(record)
            count += 1
        writer.close()
        # On the disk before it gets its name: a power cut leaves no shard that is cut short.
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        digest = sha256(temporary)
        size = temporary.stat().st_size
        temporary.replace(path)
    except (OSError, RuntimeError) as e:
        raise InputError(
            f"{path}: cannot be written ({e}), expected a writable directory with room"
        ) from None
    return Shard(file, split, count, size, digest)


def check_shard(directory: Path, shard: Shard, remedy: str) -> None:
    """Check a shard's size and number of records; the bytes are not hashed.

    Args:
        directory: directory of the corpus or cache.
        shard: the shard as it was written.
        remedy: advice on a damaged shard, for messages.

    Raises:
        InputError: it is missing, truncated or damaged.
    """
    path = directory / shard.file
    size = shard.size_in(directory)
    if size != shard.bytes:
        raise InputError(f"{path}: has {size} bytes, expected {shard.bytes}; {remedy}")
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()
    except RuntimeError as e:
        raise damaged_error(path, e, remedy) from None
    if count != shard.sequences:
        raise damaged_error(path, f"{count} records, expected {shard.sequences}", remedy)


def damaged_error(path: Path, reason: object, remedy: str) -> InputError:
    """Make the error for a damaged shard.

    Args:
        path: the shard.
        reason: what is wrong with it.
        remedy: what the user may do.
    """
    return InputError(f"{path}: damaged ({reason}); {remedy}")
