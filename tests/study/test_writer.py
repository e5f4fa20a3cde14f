"""The one writer of a study's places, of one process or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdjax.errors import InputError, InUse
from kdjax.parallel import hosts
from kdjax.storage import locks
from kdjax.study.writer import sole_writer


def test_both_places_are_held_and_free_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "out"
    backup = tmp_path / "kept"
    with sole_writer(out, backup):
        assert (out / ".lock").exists() and (backup / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_backup_that_cannot_be_written_is_named_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"train\.checkpoint\.directory: .*file cannot be used"),
        sole_writer(tmp_path / "out", tmp_path / "file"),
    ):
        pass
    assert not (tmp_path / "out").exists()


def test_process_that_is_not_the_main_one_takes_nothing_and_learns_of_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = ["", False]
    monkeypatch.setattr(hosts, "is_main_process", lambda: False)
    monkeypatch.setattr(hosts, "broadcast_from_main", lambda value: sent)
    with sole_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []
    sent[:] = ["out: process 7 is writing here", True]
    with pytest.raises(InUse, match="process 7"), sole_writer(tmp_path):
        pass
    sent[:] = ["out: cannot be written", False]
    with pytest.raises(InputError, match="cannot be written"), sole_writer(tmp_path):
        pass


def test_main_process_tells_the_others_why_it_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def broadcast(value: Any) -> Any:
        sent.append(value)
        return value

    def refuse(*words: Any) -> Any:
        raise InUse("out: process 7 is writing here")

    monkeypatch.setattr(hosts, "broadcast_from_main", broadcast)
    monkeypatch.setattr(locks, "hold", refuse)
    with pytest.raises(InUse), sole_writer(tmp_path):
        pass
    assert sent == [["out: process 7 is writing here", True]]
