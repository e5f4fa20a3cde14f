"""Stored arrays come back as they were made, whatever interrupted the building, or are refused by
name."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from kdjax.errors import InputError
from kdjax.training.teacher_cache import store as cache
from kdjax.training.teacher_cache.manifest import CacheManifest, Field, record_bytes
from kdjax.training.teacher_cache.store import Cache
from tests.data.directories import contents

ROOT = Path(__file__).parents[3]
FIELDS = (
    Field("hidden", "float32", (3, 4)),
    Field("log_probs", "float16", (2,)),
    Field("ids", "uint16", (2, 5)),
    Field("long_ids", "uint32", (1,)),
    Field("change", "int32", ()),
    Field("exact", "float64", (2,)),
)
SEQUENCES = 11
VIEWS = 3
BLOCK = 5  # 33 records: six blocks of five, which straddle views, and one of three
HUGE = 2**53 + 1
IDENTITY = {
    "teacher": {"sha256": "abc", "layers": [1, 4]},
    "views": VIEWS,
    "rate": 0.15,
    "head": None,
}


def row(field: Field, sequence: int, view: int) -> np.ndarray:
    """Make what a record of this sequence and view holds: any bytes that make finite numbers."""
    rng = np.random.default_rng([FIELDS.index(field), sequence, view])
    if field.dtype.startswith("float"):
        return rng.normal(size=field.shape).astype(field.dtype)
    limits = np.iinfo(field.dtype)
    return rng.integers(limits.min, limits.max, field.shape, dtype=field.dtype, endpoint=True)


def rows(sequences: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of some records, by field."""
    arrays = {}
    for field in FIELDS:
        records = map(functools.partial(row, field), sequences.tolist(), views.tolist())
        arrays[field.name] = np.stack(list(records))
    return arrays


def make(sequences: np.ndarray, views: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return rows(sequences, views), {
        "flops": HUGE,
        "records": np.int64(len(sequences)),
        "loss": 0.25 * len(sequences),
    }


def build(directory: Path, **changes: Any) -> CacheManifest:
    arguments: dict[str, Any] = {
        "identity": IDENTITY,
        "fields": FIELDS,
        "sequences": SEQUENCES,
        "views": VIEWS,
    }
    return cache.build_cache(directory, **{**arguments, "block": BLOCK, "make": make, **changes})


def recorded(calls: list[int], fail_at: int = -1) -> Callable[..., Any]:
    """Return a `make` that notes each block's first record, and fails at one of them."""

    def making(sequences: np.ndarray, views: np.ndarray) -> Any:
        calls.append(int(views[0] * SEQUENCES + sequences[0]))
        if calls[-1] == fail_at:
            raise RuntimeError("power cut")
        return make(sequences, views)

    return making


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache that no test changes."""
    directory = tmp_path_factory.mktemp("cache") / "whole"
    build(directory)
    return directory


@pytest.mark.parametrize("block", [1, 5, 33, 1000])
def test_every_record_comes_back_in_any_order(tmp_path: Path, block: int) -> None:
    build(tmp_path, block=block)
    opened = Cache.open(tmp_path)
    # Every record twice, in any order.
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(SEQUENCES * VIEWS), 2))
    sequences = order % SEQUENCES
    views = order // SEQUENCES
    expected = rows(sequences, views)
    actual = opened.read(sequences, views)
    assert list(actual) == [field.name for field in FIELDS]
    for field in FIELDS:
        assert actual[field.name].dtype == np.dtype(field.dtype)
        assert actual[field.name].shape == (66, *field.shape)
        assert np.array_equal(actual[field.name], expected[field.name])
    # No two records are alike, so that none can stand in for another.
    assert len(np.unique(actual["hidden"][:, 0, 0])) == SEQUENCES * VIEWS
    assert opened.read(sequences[:0], views[:0])["ids"].shape == (0, 2, 5)


def test_record_is_the_little_endian_bytes_of_its_fields_in_order(whole: Path) -> None:
    number = 0
    for shard in CacheManifest.read(whole).shards:
        for record in ArrayRecordReader(str(whole / shard.file)).read_all():
            values = [row(field, number % SEQUENCES, number // SEQUENCES) for field in FIELDS]
            little = [value.astype(value.dtype.newbyteorder("<")).tobytes() for value in values]
            assert record == b"".join(little)
            assert len(record) == record_bytes(FIELDS) == 48 + 4 + 20 + 4 + 4 + 16
            number += 1
    assert number == SEQUENCES * VIEWS


def test_manifest_lists_shards_fields_and_counts(whole: Path) -> None:
    manifest = CacheManifest.read(whole)
    assert manifest.identity == IDENTITY
    assert (manifest.fields, manifest.sequences, manifest.views) == (FIELDS, SEQUENCES, VIEWS)
    assert [shard.sequences for shard in manifest.shards] == [5] * 6 + [3]
    assert manifest.bytes == sum(path.stat().st_size for path in whole.rglob("*.array_record"))
    for shard in manifest.shards:
        assert shard.sha256 == hashlib.sha256((whole / shard.file).read_bytes()).hexdigest()


def test_totals_are_exact_for_integers_that_no_float_holds(whole: Path) -> None:
    totals = CacheManifest.read(whole).totals
    assert totals == {"flops": 7 * HUGE, "records": 33, "loss": 8.25}
    assert [type(value) for value in totals.values()] == [int, int, float]
    assert float(HUGE) != HUGE


@pytest.mark.parametrize("fail_at", [0, 10, 30])
def test_interrupted_build_goes_on_with_the_missing_blocks(
    tmp_path: Path, whole: Path, fail_at: int
) -> None:
    calls: list[int] = []
    with pytest.raises(RuntimeError, match="power cut"):
        build(tmp_path, make=recorded(calls, fail_at))
    assert calls == list(range(0, fail_at + 1, 5))
    with pytest.raises(
        InputError, match="is an unfinished cache; the command that began it goes on with it"
    ):
        Cache.open(tmp_path)
    calls.clear()
    progress: list[tuple[int, int]] = []
    manifest = build(
        tmp_path, make=recorded(calls), progress=lambda *values: progress.append(values)
    )
    assert calls == list(range(fail_at, 33, 5))
    assert progress == [(min(start + 5, 33), 33) for start in calls]
    assert contents(tmp_path) == contents(whole)
    assert manifest == CacheManifest.read(whole)


def test_half_written_files_of_a_killed_build_are_made_again(tmp_path: Path, whole: Path) -> None:
    (tmp_path / ".plan.json.7.tmp").write_text('{"half')
    with pytest.raises(RuntimeError):
        build(tmp_path, make=recorded([], fail_at=25))
    shards = tmp_path / "shards"
    # Whole blocks stay the same files.
    inodes = {path: path.stat().st_ino for path in shards.glob("0000[034].*")}
    (shards / "part-00001.json").unlink()  # killed between a shard and its record
    (shards / "00002.array_record").write_bytes(b"half")
    (shards / ".00005.array_record.7.tmp").write_bytes(b"half")
    (tmp_path / ".manifest.json.7.tmp").write_text('{"half')
    calls: list[int] = []
    build(tmp_path, make=recorded(calls))
    assert calls == [5, 10, 25, 30]
    assert contents(tmp_path) == contents(whole)
    assert {path: path.stat().st_ino for path in inodes} == inodes


@pytest.mark.system
def test_killed_process_loses_the_block_it_was_making(tmp_path: Path, whole: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests.training.teacher_cache.test_store import build, make

def killed(sequences, views):
    if views[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return make(sequences, views)

build(Path({str(tmp_path)!r}), make=killed)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == -9
    calls: list[int] = []
    build(tmp_path, make=recorded(calls))
    assert calls == [15, 20, 25, 30]
    assert contents(tmp_path) == contents(whole)


def test_finished_cache_is_found_done(tmp_path: Path) -> None:
    calls: list[int] = []
    first = build(tmp_path)
    assert build(tmp_path, make=recorded(calls)) == first
    assert not calls


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Make a cache of which a shard was cut short, and one is missing."""
    shards = [tmp_path / shard.file for shard in build(tmp_path).shards]
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    shards[4].unlink()
    return tmp_path


def test_damaged_cache_gets_its_damaged_blocks_anew(damaged: Path, whole: Path) -> None:
    calls: list[int] = []
    build(damaged, make=recorded(calls))
    assert calls == [5, 20]
    assert contents(damaged) == contents(whole)


def test_damaged_cache_that_was_half_mended_is_unfinished(damaged: Path) -> None:
    with pytest.raises(RuntimeError):
        build(damaged, make=recorded([], fail_at=20))
    with pytest.raises(InputError, match="is an unfinished cache"):
        Cache.open(damaged)


def test_half_mended_cache_goes_on_with_the_blocks_it_lacks(damaged: Path, whole: Path) -> None:
    with pytest.raises(RuntimeError):
        build(damaged, make=recorded([], fail_at=20))
    calls: list[int] = []
    build(damaged, make=recorded(calls))
    assert calls == [20]
    assert contents(damaged) == contents(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"identity": {**IDENTITY, "teacher": {"sha256": "abd", "layers": [1, 4]}}},
            "teacher.sha256 abc, expected abd",
        ),
        (
            {"identity": {**IDENTITY, "teacher": {"sha256": "abc", "layers": [4]}}},
            r"teacher.layers \[1, 4\], .* \[4\]",
        ),
        ({"identity": {**IDENTITY, "rate": 0.2}}, "rate 0.15, expected 0.2"),
        ({"identity": {**IDENTITY, "k": 64}}, "k None, expected 64"),
        (
            {"identity": {k: v for k, v in IDENTITY.items() if k != "rate"}},
            "rate 0.15, expected None",
        ),
        ({"fields": FIELDS[::-1]}, "fields.0.name hidden, expected exact"),
        ({"fields": FIELDS[:-1]}, "fields .*, expected .*"),
        ({"sequences": 12}, "sequences 11, expected 12"),
        ({"block": 6}, "records_per_shard 5, expected 6"),
    ],
)
def test_another_cache_s_directory_is_refused_by_the_setting_that_differs(
    whole: Path, changes: dict[str, Any], message: str
) -> None:
    before = contents(whole)
    with pytest.raises(InputError, match=rf"whole: was built with {message} or a new directory"):
        build(whole, **changes)
    assert contents(whole) == before


def test_identity_may_have_tuples_and_any_order_of_keys(whole: Path) -> None:
    identity = {**dict(reversed(IDENTITY.items())), "teacher": {"layers": (1, 4), "sha256": "abc"}}
    assert build(whole, identity=identity) == CacheManifest.read(whole)


def test_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "out" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no cache"):
        build(tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["thesis.txt"]
    with pytest.raises(InputError, match=r"thesis\.txt: cannot be written"):
        build(thesis)
    for directory in (tmp_path / "out", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=rf"{directory.name}: holds no cache"):
            Cache.open(directory)


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    # As another process would.
    handle = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is writing here"):
        build(tmp_path)
    os.close(handle)
    assert build(tmp_path).digest


def test_truncated_missing_or_overwritten_shard_is_named(tmp_path: Path) -> None:
    shard = tmp_path / build(tmp_path).shards[2].file
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(
        InputError, match=rf"{shard.name}: has {len(data) - 100} bytes, expected {len(data)}"
    ):
        Cache.open(tmp_path)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: has 0 bytes"):
        Cache.open(tmp_path)
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(InputError, match=rf"{shard.name}: damaged"):
        Cache.open(tmp_path)


def test_flipped_bit_is_found_when_its_record_is_read_and_mended_as_told(
    tmp_path: Path, whole: Path
) -> None:
    shard = tmp_path / build(tmp_path).shards[2].file
    data = bytearray(shard.read_bytes())
    place = data.find(row(FIELDS[0], 2, 1).tobytes())  # record 13 is in shard 2
    assert place > 0
    data[place] ^= 1
    shard.write_bytes(data)
    opened = Cache.open(tmp_path)
    # Its neighbours are read all the same.
    for sequence in (1, 3):
        assert opened.read(np.array([sequence]), np.array([1]))["change"] == row(
            FIELDS[4], sequence, 1
        )
    with pytest.raises(
        InputError, match=rf"{tmp_path}/shards/{shard.name}: damaged .* delete it and build"
    ):
        opened.read(np.array([1, 2]), np.array([1, 1]))
    shard.unlink()
    build(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_changed_or_foreign_manifest_is_refused(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "manifest.json"
    good = (whole / "manifest.json").read_text()
    for text, message in (
        (good.replace('"sequences": 11', '"sequences": 12', 1), "does not match its own digest"),
        (good.replace('"version": 1', '"version": 0'), "is of version 0, expected 1"),
        (good.replace('"fields"', '"fiends"'), "not a cache's manifest"),
        (good[: len(good) // 2], "expected a JSON file"),
    ):
        assert text != good
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            Cache.open(tmp_path)


@pytest.mark.parametrize(
    ("sequence", "view", "name"), [(11, 0, "sequence"), (-1, 1, "sequence"), (0, 3, "view")]
)
def test_record_that_was_never_stored_is_refused(
    whole: Path, sequence: int, view: int, name: str
) -> None:
    with pytest.raises(ValueError, match=f"asked for a {name} out of the"):
        Cache.open(whole).read(np.array([0, sequence]), np.array([0, view]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("ids"), "made the arrays .*, expected"),
        (lambda a: a.update(more=a["ids"]), "made the arrays .*more.*, expected"),
        (
            lambda a: a.update(ids=a["ids"].astype("uint32")),
            r"made ids uint32 \(5, 2, 5\), expected uint16",
        ),
        (
            lambda a: a.update(ids=a["ids"][:4]),
            r"made ids uint16 \(4, 2, 5\), expected uint16 \(5, 2, 5\)",
        ),
    ],
)
def test_arrays_that_do_not_match_the_fields_raise(
    tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    def wrong(sequences: np.ndarray, views: np.ndarray) -> Any:
        arrays, totals = make(sequences, views)
        change(arrays)
        return arrays, totals

    with pytest.raises(ValueError, match=message):
        build(tmp_path, make=wrong)


@pytest.mark.parametrize(
    "changes", [{"views": 0}, {"block": 0}, {"fields": ()}, {"fields": FIELDS[:1] * 2}]
)
def test_unusable_counts_and_fields_raise(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 each, and distinct fields"):
        build(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_field_that_is_not_numeric_raises() -> None:
    with pytest.raises(ValueError, match="field words: dtype is str, expected a numeric one"):
        Field("words", "str", (2,))
