"""What a cache consists of: `manifest.json` in its directory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.manifest import NAME, Shard, SignedManifest
from kdjax.errors import InputError

PLAN = "plan.json"
"""File that says what the directory is built for; written first, so that a restart can tell whether
it may go on."""
VERSION = 1

Totals = dict[str, float | int]
"""Numbers that come with the arrays and are added up, by name."""


@dataclass(frozen=True)
class Field:
    """One array of a record.

    Attributes:
        name: name of the array in a batch.
        dtype: NumPy's name of a numeric type, such as `float16`.
        shape: shape of the array, without the batch axis.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in "iufc":
            raise ValueError(f"field {self.name}: dtype is {self.dtype}, expected a numeric one")

    @property
    def stored(self) -> np.dtype[Any]:
        """Return the type in the file: little-endian on every machine."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def count(self) -> int:
        """Compute the number of numbers in the array."""
        return math.prod(self.shape)


def record_bytes(fields: Iterable[Field]) -> int:
    """Sum the bytes of one record. ArrayRecord adds some 40 a record and up to 2^17 a shard."""
    return sum(field.count * field.stored.itemsize for field in fields)


@dataclass(frozen=True)
class CacheManifest(SignedManifest):
    """What a finished cache consists of.

    Attributes:
        version: version of this format.
        identity: values the arrays depend on besides sequence and view, such as the teacher's
            digest; plain JSON values.
        fields: the arrays of a record, in the order of their bytes.
        sequences: number of sequences of the training split.
        views: number of mask views of each sequence (`data.mask_copies`).
        records_per_shard: number of records of each shard; the last one may have fewer.
        shards: the files. Record number `view * sequences + sequence` is in shard `number //
            records_per_shard`.
        totals: the numbers that came with the arrays, summed over the shards.
        bytes: bytes of all shards.
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

    @staticmethod
    def read(directory: Path) -> CacheManifest:
        """Read a cache's manifest.

        Raises:
            InputError: no cache, an unfinished one or one of another version, or a manifest that
                was changed.
        """
        # The plan is written first, the manifest last.
        path = directory / NAME
        if not path.is_file() and (directory / PLAN).is_file():
            raise InputError(
                f"{directory}: is an unfinished cache; the command that began it goes on with it"
            )
        if not path.is_file():
            raise InputError(f"{directory}: holds no cache, expected a directory with a {NAME}")
        return CacheManifest.read_signed(
            path,
            CacheManifest._from_json,
            version=VERSION,
            kind="cache",
            writer="its builder",
            remedy="build the cache anew",
        )

    @staticmethod
    def _from_json(values: dict[str, Any]) -> CacheManifest:
        fields = []
        for field in values["fields"]:
            fields.append(Field(field["name"], field["dtype"], tuple(field["shape"])))
        shards = tuple(Shard(**shard) for shard in values["shards"])
        return CacheManifest(**{**values, "fields": tuple(fields), "shards": shards})


def bias(manifest: CacheManifest) -> dict[str, float]:
    """Return the bias of the stored distributions for each position; empty for whole logits.

    It is measured against the teacher's own distributions: `kdjax.training.teacher_cache.fill`
    adds up the totals and counts the positions.
    """
    # Whole logits have no bias: their totals are FLOPs alone.
    totals = dict(manifest.totals)
    positions = totals.pop("positions", 0)
    if not positions:
        return {}
    return {name: total / positions for name, total in totals.items() if name != "flops"}
