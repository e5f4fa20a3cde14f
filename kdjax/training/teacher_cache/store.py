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

from kdjax.config import plain
from kdjax.data.manifest import NAME, Shard
from kdjax.data.shards import SHARDS, check_shard, damaged_error, lock_shards, write_shard
from kdjax.errors import InputError
from kdjax.storage.files import entries, read_json, write_json
from kdjax.storage.typed_json import read_typed
from kdjax.training.teacher_cache.manifest import (
    PLAN,
    VERSION,
    CacheManifest,
    Field,
    Totals,
    record_bytes,
)

Make = Callable[[np.ndarray, np.ndarray], tuple[dict[str, np.ndarray], Totals]]
"""(sequence numbers `[n]`, views `[n]`) -> the fields' arrays, each `[n, *shape]`, and numbers to
be added up."""
ReportSequences = Callable[[int, int], None]
"""Takes the number of records that are done, and of all."""

_REMEDY = "delete it and build the cache again"


@dataclass(frozen=True)
class Cache:
    """A finished cache, open for reading.

    Attributes:
        manifest: description of the cache.
        directory: directory of the cache.
    """

    manifest: CacheManifest
    directory: Path
    _shards: tuple[grain.sources.ArrayRecordDataSource, ...]

    @staticmethod
    def open(directory: Path) -> Cache:
        """Open a cache; every shard must be there with its size and number of records.

        The bytes are not hashed here: ArrayRecord checks a hash of each record that is read.

        Raises:
            InputError: no finished cache, or a missing or truncated shard.
        """
        manifest = CacheManifest.read(directory)
        shards = []
        for shard in manifest.shards:
            check_shard(directory, shard, _REMEDY)
            path = str(directory / shard.file)
            shards.append(grain.sources.ArrayRecordDataSource([path]))
        return Cache(manifest, directory, tuple(shards))

    def read(self, sequences: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
        """Read the arrays of some sequences under some views.

        Args:
            sequences: `[n]`, numbers in the training split.
            views: `[n]`, mask views from 0.

        Returns:
            Each field's array, `[n, *shape]`.

        Raises:
            InputError: a record is damaged.
            ValueError: there is no such sequence or view.
        """
        manifest = self.manifest
        self._check_range("sequence", sequences, manifest.sequences)
        self._check_range("view", views, manifest.views)
        # Records are numbered view by view, so that a view lies together.
        arrays = {}
        for field in manifest.fields:
            arrays[field.name] = np.empty((len(sequences), *field.shape), field.dtype)
        numbers = views.astype(np.int64) * manifest.sequences + sequences
        for row, number in enumerate(numbers):
            record = self._record(int(number))
            # A record is the bytes of its fields, one after another.
            start = 0
            for field in manifest.fields:
                values = np.frombuffer(record, field.stored, field.count, start)
                arrays[field.name][row] = values.reshape(field.shape)
                start += values.nbytes
        return arrays

    def _check_range(self, name: str, numbers: np.ndarray, count: int) -> None:
        if np.any((numbers < 0) | (numbers >= count)):
            raise ValueError(f"{self.directory}: asked for a {name} out of the {count} there are")

    def _record(self, number: int) -> bytes:
        """Read a record.

        Raises:
            InputError: the record is damaged.
        """
        # All shards but the last have the same number of records.
        shard, place = divmod(number, self.manifest.records_per_shard)
        try:
            record: bytes = self._shards[shard][place]
        except RuntimeError as e:
            path = self.directory / self.manifest.shards[shard].file
            raise damaged_error(path, e, _REMEDY) from None
        return record


def build_cache(
    directory: Path,
    *,
    identity: dict[str, Any],
    fields: Sequence[Field],
    sequences: int,
    views: int,
    block: int,
    make: Make,
    progress: ReportSequences | None = None,
) -> CacheManifest:
    """Build a cache in a directory, or go on with an interrupted one, or find it done.

    Args:
        directory: new, empty, or an earlier build of the same.
        identity: values that `make` depends on, as plain JSON; other values make another cache.
        fields: the arrays of a record.
        sequences: number of sequences of the training split.
        views: number of mask views of each sequence (`data.mask_copies`).
        block: number of records that are made together and make a shard: the most that a kill
            loses.
        make: pure function that makes a block: then the same bytes come about however often the
            build was interrupted.
        progress: function called after each block with the number of records done, those of earlier
            builds included, and of all.

    Raises:
        InputError: the directory holds something else, is in use or cannot be written.
        ValueError: unusable counts or fields, or `make` returned other arrays than the fields.
    """
    names = {field.name for field in fields}
    if min(sequences, views, block) < 1 or not record_bytes(fields) or len(names) < len(fields):
        raise ValueError(
            f"{sequences=}, {views=}, {block=}, {fields=}: expected at least 1 each, and distinct "
            "fields"
        )
    # As it will be read back from JSON.
    known = json.loads(json.dumps(identity))
    empty = CacheManifest(
        VERSION, known, tuple(fields), sequences, views, block, shards=(), totals={}, bytes=0
    )
    with lock_shards(directory, PLAN):
        _check_plan(directory, empty)
        if (directory / NAME).exists():
            done = CacheManifest.read(directory)
            if all(shard.size_in(directory) == shard.bytes for shard in done.shards):
                return done
            (directory / NAME).unlink()  # it must not vouch for shards that are made again
        blocks = _make_missing(directory, empty, make, progress)
        shards = tuple(block.shard for block in blocks)
        size = sum(shard.bytes for shard in shards)
        manifest = dataclasses.replace(empty, shards=shards, totals=_total(blocks), bytes=size)
        manifest = manifest.signed()
        manifest.write(directory)
        return manifest


@dataclass(frozen=True)
class StoredBlock:
    """A finished block: its shard, and the numbers that came with the arrays.

    Its file, `part-00000.json`, is written after the shard, as the proof that it is whole.
    """

    shard: Shard
    totals: Totals


def _check_plan(directory: Path, empty: CacheManifest) -> None:
    """Write the plan into a new directory, or check that the directory was begun with the same one.

    Raises:
        InputError: the directory was begun with another plan, or holds something else.
    """
    # What is known before the first block is made.
    plan = dataclasses.asdict(empty)
    for result in ("shards", "totals", "bytes", "digest"):
        del plan[result]
    path = directory / PLAN
    if not path.exists():
        if entries(directory):
            raise InputError(
                f"{directory}: is not empty and holds no cache, expected a new or empty directory"
            )
        write_json(path, plan)
        return
    different = _difference(read_json(path), plain(plan), "")
    if different:
        name, begun, expected = different
        raise InputError(
            f"{directory}: was built with {name} {begun}, expected {expected} or a new directory"
        )


def _difference(begun: Any, expected: Any, name: str) -> tuple[str, Any, Any] | None:
    """Find the first setting that differs: its dotted name, and both values; None: none does."""
    # Lists of the same length are compared item by item.
    if isinstance(begun, list) and isinstance(expected, list) and len(begun) == len(expected):
        begun = dict(enumerate(begun))
        expected = dict(enumerate(expected))
    if not (isinstance(begun, dict) and isinstance(expected, dict)):
        if begun == expected:
            return None
        return name.removeprefix("identity."), begun, expected
    for key in {**expected, **begun}:
        inner = f"{name}.{key}".lstrip(".")
        different = _difference(begun.get(key), expected.get(key), inner)
        if different:
            return different
    return None


def _make_missing(
    directory: Path, empty: CacheManifest, make: Make, progress: ReportSequences | None
) -> list[StoredBlock]:
    """Make the blocks that are not finished; return all in order."""
    size = empty.records_per_shard
    records = empty.sequences * empty.views
    starts = range(0, records, size)
    stored = [_find_finished(directory, index) for index in range(len(starts))]
    done = sum(block.shard.sequences for block in stored if block)
    blocks = []
    for index, finished in enumerate(stored):
        if finished:
            blocks.append(finished)
            continue
        # Records are numbered view by view: `view * sequences + sequence`.
        numbers = np.arange(starts[index], min(starts[index] + size, records))
        views, sequences = np.divmod(numbers, empty.sequences)
        arrays, totals = make(sequences, views)
        encoded = _encode(empty.fields, arrays, len(numbers))
        shard = write_shard(directory, f"{index:05d}", "train", encoded)
        block = StoredBlock(shard, {name: _plain(value) for name, value in totals.items()})
        write_json(_record_path(directory, index), dataclasses.asdict(block))
        blocks.append(block)
        done += len(numbers)
        if progress:
            progress(done, records)
    return blocks


def _find_finished(directory: Path, index: int) -> StoredBlock | None:
    """Read a block's record if it is there and its shard is whole, else return None."""
    path = _record_path(directory, index)
    if not path.exists():
        return None
    block = read_typed(StoredBlock, path)
    if block.shard.intact(directory):
        return block
    return None


def _record_path(directory: Path, index: int) -> Path:
    return directory / SHARDS / f"part-{index:05d}.json"


def _encode(fields: Sequence[Field], arrays: Mapping[str, np.ndarray], count: int) -> list[bytes]:
    """Check the arrays against the fields and encode each record as bytes.

    Raises:
        ValueError: names, types or shapes differ.
    """
    names = sorted(field.name for field in fields)
    if sorted(arrays) != names:
        raise ValueError(f"made the arrays {sorted(arrays)}, expected {names}")
    # Nothing is converted silently: another type would be other numbers.
    stored = []
    for field in fields:
        array = arrays[field.name]
        shape = (count, *field.shape)
        if array.shape != shape or array.dtype != field.dtype:
            raise ValueError(
                f"made {field.name} {array.dtype} {array.shape}, expected {field.dtype} {shape}"
            )
        stored.append(np.asarray(array, field.stored))
    records = []
    for record in zip(*stored, strict=True):
        records.append(b"".join(array.tobytes() for array in record))
    return records


def _total(blocks: Iterable[StoredBlock]) -> Totals:
    """Add up the numbers that came with the blocks, by name."""
    sums: Totals = {}
    for block in blocks:
        for name, value in block.totals.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def _plain(value: float | int) -> float | int:
    """Return a Python number, as JSON gives it back: integers stay exact."""
    if isinstance(value, (int, np.integer)):
        return int(value)
    return float(value)
