"""What a cache consists of: `manifest.json` in its directory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.manifest import Shard
from kdjax.errors import InputError
from kdjax.files import digest, read_json, write_json

NAME = "manifest.json"
PLAN = "plan.json"
"""What the directory is built for; written first, so that a restart can tell whether it may go
on."""
VERSION = 1

Totals = dict[str, float | int]


@dataclass(frozen=True)
class Field:
    """One array of a record.

    Attributes:
        name: its name in a batch.
        dtype: NumPy's name of a numeric type, such as `float16`.
        shape: without the batch axis.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in "iufc":
            raise ValueError(f"field {self.name}: dtype is {self.dtype}, expected a numeric one")

    @property
    def stored(self) -> np.dtype[Any]:
        """The type in the file: little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def count(self) -> int:
        """Numbers in the array."""
        return math.prod(self.shape)


def record_bytes(fields: Iterable[Field]) -> int:
    """Bytes of one record. ArrayRecord adds some 40 a record and up to 2^17 a shard."""
    return sum(field.count * field.stored.itemsize for field in fields)


@dataclass(frozen=True)
class CacheManifest:
    """A finished cache.

    Attributes:
        version: of this format.
        identity: what the arrays depend on besides sequence and view: whose they are. Plain JSON
            values.
        fields: the arrays of a record, in the order of their bytes.
        sequences: of the training split.
        views: mask views of each sequence.
        records_per_shard: the last shard may have fewer.
        shards: the files. Record number `view * sequences + sequence` is in shard `number //
            records_per_shard`.
        totals: the numbers that came with the arrays, summed over the shards.
        bytes: of all shards.
        digest: SHA-256 of all of the above.
    """

    version: int
    identity: dict[str, Any]
    fields: tuple[Field, ...]
    sequences: int
    views: int
    records_per_shard: int
    shards: tuple[Shard, ...]
    totals: Totals
    bytes: int
    digest: str = ""

    def signed(self) -> CacheManifest:
        """The same with its digest filled in."""
        content = {
            name: value for name, value in dataclasses.asdict(self).items() if name != "digest"
        }
        return dataclasses.replace(self, digest=digest(content))

    def write(self, directory: Path) -> None:
        """Writes manifest.json, whole or not at all."""
        write_json(directory / NAME, dataclasses.asdict(self))

    @staticmethod
    def read(directory: Path) -> CacheManifest:
        """Reads a cache's manifest.

        Raises:
            InputError: no cache, an unfinished one or one of another version, or a manifest that
                was changed.
        """
        path = directory / NAME
        if not path.is_file():
            if (directory / PLAN).is_file():
                raise InputError(
                    f"{directory}: is an unfinished cache; the command that began it goes on with "
                    "it"
                )
            raise InputError(f"{directory}: holds no cache, expected a directory with a {NAME}")
        values = read_json(path)
        found = values.get("version") if isinstance(values, dict) else None
        if found != VERSION:
            raise InputError(
                f"{path}: is of version {found}, expected {VERSION}; build the cache anew"
            )
        try:
            fields = tuple(
                Field(**{**field, "shape": tuple(field["shape"])}) for field in values["fields"]
            )
            shards = tuple(Shard(**shard) for shard in values["shards"])
            manifest = CacheManifest(**{**values, "fields": fields, "shards": shards})
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(
                f"{path}: not a cache's manifest ({e}), expected the one its builder wrote"
            ) from None
        if manifest.digest != manifest.signed().digest:
            raise InputError(
                f"{path}: does not match its own digest, expected the manifest as its builder "
                "wrote it"
            )
        return manifest


def bias(manifest: CacheManifest) -> dict[str, float]:
    """Return how far the stored distributions are off the teacher's, a position; empty for whole
    logits.

    `kdjax.training.fill_teacher_cache.build` adds up the totals.
    """
    totals = dict(manifest.totals)
    positions = totals.pop("positions", 0)
    return (
        {name: total / positions for name, total in totals.items() if name != "flops"}
        if positions
        else {}
    )
