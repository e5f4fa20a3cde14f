"""A checkpoint that fails in the background is reported by its own step."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.config import LogConfig
from kdjax.errors import InputError, NoHandles
from kdjax.parallel.preemption import PREEMPTION
from kdjax.training.checkpoints.retry import CheckpointRetry
from kdjax.training.checkpoints.storage import CheckpointStorage, Unsaved
from kdjax.training.records.run_records import RunRecords


class FailingStorage(CheckpointStorage):
    """A storage in which some steps' checkpoints fail once they are waited for."""

    def __init__(self, directory: Path, failing: set[int]):
        super().__init__(directory)
        self.path = directory
        self.failing = failing
        self.pending: int | None = None
        self.saved: list[int] = []

    def save(self, state: Any, ledger: Ledger, records: Mapping[str, str] | None = None) -> None:
        self.wait()
        self.pending = ledger.steps

    def wait(self) -> bool:
        step = self.pending
        if step is None:
            return False
        self.pending = None
        if step in self.failing:
            raise Unsaved(self.path / str(step), "File too large")
        self.saved.append(step)
        return True


def records(directory: Path) -> RunRecords:
    return RunRecords(directory, 0, LogConfig(tensorboard=False), None, warn=print)


def ledger(steps: int) -> Ledger:
    return replace(Ledger.open(Budget.flops(1e6)), steps_by_phase=(steps,))


def test_warning_names_the_step_that_failed_and_the_next_one_is_saved(tmp_path: Path) -> None:
    warnings: list[str] = []
    storage = FailingStorage(tmp_path / "checkpoints", {100})
    retry = CheckpointRetry(storage, tmp_path, 3600.0, warnings.append)
    written = records(tmp_path)
    retry.save({}, ledger(100), written)
    assert warnings == []
    retry.save({}, ledger(200), written)
    assert retry.wait_until_saved(ledger(200))
    assert storage.saved == [200]
    assert warnings == [
        f"{tmp_path}/checkpoints/100 could not be written (File too large); the run goes on "
        "without a checkpoint of step 100, for 3600 s at most"
    ]


def test_failure_without_patience_stops_with_the_step_that_failed(tmp_path: Path) -> None:
    storage = FailingStorage(tmp_path / "checkpoints", {100})
    retry = CheckpointRetry(storage, tmp_path, 0.0, pytest.fail)
    written = records(tmp_path)
    retry.save({}, ledger(100), written)
    with pytest.raises(InputError) as stopped:
        retry.save({}, ledger(200), written)
    assert str(stopped.value) == (
        f"{tmp_path}/checkpoints/100 could not be written (File too large), expected room for it; "
        "the same command goes on from the last whole checkpoint, if there is one"
    )


def test_out_of_file_handles_is_refused_at_once(tmp_path: Path) -> None:
    class StorageWithoutHandles(FailingStorage):
        def wait(self) -> bool:
            raise Unsaved(self.path / "100", os.strerror(errno.EMFILE))

    storage = StorageWithoutHandles(tmp_path / "checkpoints", set())
    retry = CheckpointRetry(storage, tmp_path, 3600.0, print)
    # Waiting frees room on a disk, and no file of this process.
    with pytest.raises(NoHandles, match=r"Too many open files.*expected a higher limit"):
        retry.wait_until_saved(ledger(100))


def test_signal_ends_the_wait_for_room_and_the_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FailingStorage(tmp_path / "checkpoints", {100})
    retry = CheckpointRetry(storage, tmp_path, 3600.0, lambda line: None)
    written = records(tmp_path)
    retry.save({}, ledger(100), written)
    assert not retry.wait_until_saved(ledger(100))
    monkeypatch.setattr(PREEMPTION, "_stop_requested", True)
    retry.sleep_before_retry()
    assert retry.patience == 0.0
    # One more try; it fails, and that is the end.
    retry.save({}, ledger(100), written)
    with pytest.raises(InputError, match="expected room for it; the same command goes on"):
        retry.wait_until_saved(ledger(100))
