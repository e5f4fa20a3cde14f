"""A machine that is lost: from `train.checkpoint.directory` another goes on, or takes back what is
finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from kdjax.study.runs import runner
from kdjax.study.runs.snapshots import kept_snapshots
from tests.faults.studies import RUN, Machine, check_same, ended_after
from tests.study.conftest import kdjax

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn")]


@pytest.fixture(params=["a path", "gs://"])
def backup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "a path":
        yield str(tmp_path / "kept")
        return
    bucket = request.getfixturevalue("bucket")
    yield f"{bucket}/kept"
    epath.Path(f"{bucket}/kept").rmtree()


def test_second_machine_resumes_and_third_downloads_the_finished_run(
    machine: Callable[[], Machine],
    straight_study: dict[str, Any],
    backup: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended_after(machine(), 3, backup)
    place = epath.Path(backup) / str(RUN)
    names = {"manifest.json", "checkpoints", "snapshots"}
    assert {path.name for path in place.iterdir()} == names

    # A machine that has only the recipe goes on from the backup.
    second = machine()
    ended = second.compare(backup)
    assert ended.status == 0, ended.err
    check_same(second.result(), straight_study)
    events = [
        json.loads(line)["event"]
        for line in (second.out / RUN / "ledger.jsonl").read_text().splitlines()
    ]
    assert events[:4] == ["open", "steps", "steps", "steps"]
    assert "restart" in events
    assert kdjax("audit", second.out).status == 0
    assert {path.name for path in place.iterdir()} == {
        *("manifest.json", "ledger.jsonl", "metrics.jsonl"),
        *("params.safetensors", "result.json", "snapshots"),
    }

    # A third finds the run finished and trains nothing.
    third = machine()
    monkeypatch.setattr(runner, "train", lambda *_, **__: pytest.fail("trained again"))
    assert third.compare(backup).status == 0
    assert third.result() == second.result()
    assert list(kept_snapshots(third.out / RUN)) == ["chck_10", "chck_600"]
    assert kept_snapshots(third.out / RUN) == kept_snapshots(second.out / RUN)
    assert kdjax("audit", third.out).status == 0


def test_first_machine_resumes_after_the_run_continued_elsewhere(
    machine: Callable[[], Machine], straight_study: dict[str, Any], tmp_path: Path
) -> None:
    backup = str(tmp_path / "kept")
    first = machine()
    second = machine()
    ended_after(first, 2, backup)
    ended_after(second, 2, backup)
    first_ledger = (first.out / RUN / "ledger.jsonl").read_text()
    second_ledger = (second.out / RUN / "ledger.jsonl").read_text()
    assert not first_ledger.startswith(second_ledger)
    assert not second_ledger.startswith(first_ledger)
    # Each has gone on from the same checkpoint; the first may end the run.
    assert first.compare(backup).status == 0
    check_same(first.result(), straight_study)
    assert kdjax("audit", first.out).status == 0


def test_backup_of_another_recipe_is_refused_and_unchanged(
    machine: Callable[[], Machine], tmp_path: Path
) -> None:
    backup = str(tmp_path / "kept")
    ended_after(machine(), 1, backup)
    before = sorted(path.name for path in (tmp_path / "kept").rglob("*"))
    second = machine()
    ended = second.compare(backup, "--budget.flops", "1.5e7")
    assert ended.status == 2
    assert "Traceback" not in ended.err
    assert f"{tmp_path / 'kept' / RUN}: this run's budget.amount is" in ended.err
    assert ended.err.strip().endswith("use another train.checkpoint.directory")
    assert sorted(path.name for path in (tmp_path / "kept").rglob("*")) == before


def test_checkpoints_in_the_former_directory_are_refused(
    machine: Callable[[], Machine], tmp_path: Path
) -> None:
    here = machine()
    ended_after(here, 2, "")
    ended = here.compare(str(tmp_path / "kept"))
    assert ended.status == 2
    assert (
        f"train.checkpoint.directory was '' and this run's checkpoints are in {here.out / RUN}"
        in ended.err
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://bucket/kept", "expected a path or gs://bucket/path"),
        ("gs://", "expected a path or gs://bucket/path"),
        ("/proc/kept", "cannot be used ("),
    ],
)
def test_impossible_backup_directory_is_refused(
    machine: Callable[[], Machine], place: str, message: str
) -> None:
    ended = machine().compare(place)
    assert ended.status == 2, ended.err
    assert message in ended.err.strip().splitlines()[-1], ended.err


def test_missing_bucket_is_refused(machine: Callable[[], Machine], bucket: str) -> None:
    ended = machine().compare("gs://no-such-bucket/kept")
    assert ended.status == 2, ended.err
    assert "train.checkpoint.directory: gs://no-such-bucket/kept" in ended.err, ended.err


def test_bucket_without_its_packages_is_refused(
    machine: Callable[[], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    monkeypatch.setattr(epath.backend.fsspec_backend, "_get_filesystem", missing)
    ended = machine().compare("gs://bucket/kept")
    assert ended.status == 2
    assert "expected them from `pip install 'kdjax[gcs]'`" in ended.err


def missing(name: str) -> Any:
    raise ImportError(name)
