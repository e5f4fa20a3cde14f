"""Arrays that belong to masked sequences, such as a teacher's outputs: stored once, read by
sequence and view."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np

from kdjax.data.manifest import Shard
from kdjax.data.shards import SHARDS, held, write_shard
from kdjax.errors import InputError
from kdjax.files import read_json, write_json
from kdjax.teacher_cache.manifest import (
    NAME,
    PLAN,
    VERSION,
    CacheManifest,
    Field,
    Totals,
    record_bytes,
)

__all__ = ["Cache", "CacheManifest", "Field", "build", "record_bytes"]

Make = Callable[[np.ndarray, np.ndarray], tuple[dict[str, np.ndarray], Totals]]
"""(sequence numbers `[n]`, views `[n]`) -> the fields' arrays, each `[n, *shape]`, and numbers to
be added up."""


@dataclass(frozen=True)
class Cache:
    """A finished cache, open for reading.

    Attributes:
        manifest: what it consists of.
        directory: where it is.
    """

    manifest: CacheManifest
    directory: Path
    _shards: tuple[grain.sources.ArrayRecordDataSource, ...]

    @staticmethod
    def open(directory: Path) -> Cache:
        """Opens a cache; every shard must be there with its size and number of records.

        The bytes are not hashed here: ArrayRecord checks a hash of each record that is read.

        Raises:
            InputError: no finished cache, or a missing or truncated shard.
        """
        manifest = CacheManifest.read(directory)
        shards = []
        for shard in manifest.shards:
            path = directory / shard.file
            size = _size(path)
            if size != shard.bytes:
                raise InputError(
                    f"{path}: has {size} bytes, expected {shard.bytes}; build the cache again"
                )
            try:
                shards.append(grain.sources.ArrayRecordDataSource([str(path)]))
            except RuntimeError as e:
                raise _damaged(path, e) from None
            if len(shards[-1]) != shard.sequences:
                raise _damaged(path, f"{len(shards[-1])} records, expected {shard.sequences}")
        return Cache(manifest, directory, tuple(shards))

    def read(self, sequences: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some sequences under some views.

        Args:
            sequences: `[n]`, numbers in the training split.
            views: `[n]`.

        Returns:
            Each field's array, `[n, *shape]`.

        Raises:
            InputError: a record is damaged.
            ValueError: there is no such sequence or view.
        """
        manifest = self.manifest
        for name, asked, there in (
            ("sequence", sequences, manifest.sequences),
            ("view", views, manifest.views),
        ):
            if np.any((asked < 0) | (asked >= there)):
                raise ValueError(
                    f"{self.directory}: asked for a {name} out of the {there} there are"
                )
        arrays = {
            field.name: np.empty((len(sequences), *field.shape), field.dtype)
            for field in manifest.fields
        }
        for row, (sequence, view) in enumerate(zip(sequences, views, strict=True)):
            shard, place = divmod(
                int(view) * manifest.sequences + int(sequence), manifest.records_per_shard
            )
            try:
                record = self._shards[shard][place]
            except RuntimeError as e:
                raise _damaged(self.directory / manifest.shards[shard].file, e) from None
            start = 0
            for field in manifest.fields:
                values = np.frombuffer(record, field.stored, field.count, start)
                arrays[field.name][row] = values.reshape(field.shape)
                start += values.nbytes
        return arrays


def build(
    directory: Path,
    *,
    identity: dict[str, Any],
    fields: Sequence[Field],
    sequences: int,
    views: int,
    block: int,
    make: Make,
    progress: Callable[[int, int], None] | None = None,
) -> CacheManifest:
    """Builds a cache in a directory, or goes on with an interrupted one, or finds it done.

    Args:
        directory: new, empty, or an earlier build of the same.
        identity: what `make` depends on, as plain JSON values; another one is another cache.
        fields: the arrays of a record.
        sequences: of the training split.
        views: mask views of each sequence.
        block: records that are made together and make a shard: the most that a kill loses.
        make: makes a block. A pure function: then the same bytes come about however often the build
            was interrupted.
        progress: told after each block how many records are done, those found done included, and
            how many there are.

    Raises:
        InputError: the directory holds something else, is in use or cannot be written.
        ValueError: unusable counts or fields, or `make` returned other arrays than the fields.
    """
    if (
        min(sequences, views, block) < 1
        or not record_bytes(fields)
        or len({f.name for f in fields}) < len(fields)
    ):
        raise ValueError(
            f"{sequences=}, {views=}, {block=}, {fields=}: expected at least 1 each, and distinct "
            "fields"
        )
    known = json.loads(json.dumps(identity))
    empty = CacheManifest(
        VERSION, known, tuple(fields), sequences, views, block, shards=(), totals={}, bytes=0
    )
    with held(directory, PLAN, "builds a cache"):
        _check_plan(directory, empty)
        if (directory / NAME).exists():
            done = CacheManifest.read(directory)
            if all(_size(directory / shard.file) == shard.bytes for shard in done.shards):
                return done
            (directory / NAME).unlink()  # it must not vouch for shards that are made again
        parts = _parts(directory, empty, make, progress)
        shards = tuple(part.shard for part in parts)
        size = sum(shard.bytes for shard in shards)
        manifest = dataclasses.replace(
            empty, shards=shards, totals=_total(parts), bytes=size
        ).signed()
        manifest.write(directory)
        return manifest


@dataclass(frozen=True)
class Part:
    """A finished block. Written after its shard, as the proof that it is whole."""

    shard: Shard
    totals: Totals


def _check_plan(directory: Path, empty: CacheManifest) -> None:
    made_later = ("shards", "totals", "bytes", "digest")
    plan = {
        name: value for name, value in dataclasses.asdict(empty).items() if name not in made_later
    }
    path = directory / PLAN
    if not path.exists():
        if any(directory.iterdir()):
            raise InputError(
                f"{directory}: is not empty and holds no cache, expected a new or empty directory"
            )
        write_json(path, plan)
        return
    different = _difference(read_json(path), json.loads(json.dumps(plan)), "")
    if different:
        name, found, expected = different
        raise InputError(
            f"{directory}: was built with {name} {found}, expected {expected} or a new directory"
        )


def _difference(found: Any, expected: Any, name: str) -> tuple[str, Any, Any] | None:
    """The first setting that differs: its dotted name, what was found and what was expected; None:
    none does."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        found = dict(enumerate(found))
        expected = dict(enumerate(expected))
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return None if found == expected else (name.removeprefix("identity."), found, expected)
    for key in [*expected, *(key for key in found if key not in expected)]:
        different = _difference(found.get(key), expected.get(key), f"{name}.{key}" if name else key)
        if different:
            return different
    return None


def _parts(
    directory: Path, empty: CacheManifest, make: Make, progress: Callable[[int, int], None] | None
) -> list[Part]:
    """Every block's part in order: those found whole, and those made now."""
    block = empty.records_per_shard
    records = empty.sequences * empty.views
    found = [_finished(directory, index) for index in range(-(-records // block))]
    done = sum(part.shard.sequences for part in found if part)
    parts = []
    for index, part in enumerate(found):
        if part:
            parts.append(part)
            continue
        first = index * block
        views, sequences = np.divmod(np.arange(first, min(first + block, records)), empty.sequences)
        arrays, totals = make(sequences, views)
        shard = write_shard(
            directory, f"{index:05d}", "train", _encoded(empty.fields, arrays, len(sequences))
        )
        parts.append(Part(shard, {name: _plain(value) for name, value in totals.items()}))
        write_json(_part_path(directory, index), dataclasses.asdict(parts[-1]))
        done += len(sequences)
        if progress:
            progress(done, records)
    return parts


def _finished(directory: Path, index: int) -> Part | None:
    """The block's part when its record and its shard are there and whole."""
    path = _part_path(directory, index)
    if not path.exists():
        return None
    values = read_json(path)
    shard = Shard(**values["shard"])
    return Part(shard, values["totals"]) if shard.intact(directory) else None


def _part_path(directory: Path, index: int) -> Path:
    return directory / SHARDS / f"part-{index:05d}.json"


def _encoded(fields: Sequence[Field], arrays: Mapping[str, np.ndarray], count: int) -> list[bytes]:
    if set(arrays) != {field.name for field in fields}:
        raise ValueError(
            f"made the arrays {sorted(arrays)}, expected {sorted(field.name for field in fields)}"
        )
    stored = []
    for field in fields:
        array = arrays[field.name]
        if array.shape != (count, *field.shape) or array.dtype != field.dtype:
            raise ValueError(
                f"made {field.name} {array.dtype} {array.shape}, expected {field.dtype} "
                f"{(count, *field.shape)}"
            )
        stored.append(np.asarray(array, field.stored))
    return [b"".join(array[row].tobytes() for array in stored) for row in range(count)]


def _total(parts: Iterable[Part]) -> Totals:
    sums: Totals = {}
    for part in parts:
        for name, value in part.totals.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def _plain(value: float | int) -> float | int:
    """A Python number, as JSON gives it back: integers stay exact."""
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _damaged(path: Path, found: object) -> InputError:
    return InputError(f"{path}: damaged ({found}); delete it and build the cache again")
