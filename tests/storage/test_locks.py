"""Locks on directories: one writer at a time, among processes as well."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdjax.errors import InputError, InUse
from kdjax.storage import locks
from kdjax.storage.files import LOCK, entries, remove_on_input_error

HOLDER = """
import sys, time
from pathlib import Path
from kdjax.storage import locks
with locks.hold(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(directory: Path, part: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds a directory."""
    words = [sys.executable, "-c", HOLDER, str(directory), part]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_second_process_is_refused_with_the_first_ones_name_until_that_is_killed(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with holder(out) as process:
        for name in (out, tmp_path / "." / "out"):
            with pytest.raises(InUse) as refused, locks.hold(name):
                pass
        text = str(refused.value)
        assert f"{out}: process {process.pid} on host {os.uname().nodename} has been" in text
        assert "since 20" in text and text.endswith("UTC, expected it to end first")
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What the killed one left is no lock, and goes with the next.
        assert (out / LOCK).exists()
        with locks.hold(out):
            assert json.loads((out / LOCK).read_text())["process"] == os.getpid()
    assert list(out.iterdir()) == []


def test_look_at_a_held_directory_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with holder(tmp_path), pytest.raises(InUse, match="expected it to end first"):
        locks.check_free(tmp_path)
    # Whoever only looks makes nothing, holds nothing, and is not refused what it holds itself.
    locks.check_free(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with locks.hold(tmp_path):
        locks.check_free(tmp_path)


def test_symbolic_link_to_a_held_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with (
        holder(tmp_path / "link"),
        pytest.raises(InUse, match="has been writing here"),
        locks.hold(tmp_path / "out"),
    ):
        pass


def test_parts_are_held_at_once_and_a_part_excludes_the_whole(tmp_path: Path) -> None:
    with holder(tmp_path, "1-of-2") as first, locks.hold(tmp_path, "2-of-2"):
        with pytest.raises(InUse), locks.hold(tmp_path, "1-of-2"):
            pass
        first.kill()
        first.wait()
        with locks.hold(tmp_path, "1-of-2"):
            pass
    with holder(tmp_path), pytest.raises(InUse), locks.hold(tmp_path, "1-of-2"):
        pass
    with holder(tmp_path, "1-of-2"), pytest.raises(InUse), locks.hold(tmp_path):
        pass
    with locks.hold(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_block_inside_another_of_the_same_thread_holds_already(tmp_path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with locks.hold(tmp_path):
                pass
        except InUse as e:
            refused.append(e)

    with locks.hold(tmp_path):
        with locks.hold(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert list(tmp_path.iterdir()) == []


def test_directory_made_for_the_lock_goes_unless_something_was_written(tmp_path: Path) -> None:
    with locks.hold(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locks.hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]


def test_lock_is_carried_to_a_directory_that_replaces_the_locked_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    new = tmp_path / "new"
    out.mkdir()
    new.mkdir()
    with locks.hold(out):
        locks.carry(out, new)
        out.rename(tmp_path / "old")
        new.rename(out)
        with (out / LOCK).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(out.iterdir()) == []


def test_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*words: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.hold(tmp_path):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: its file system cannot lock files (Operation not supported)" in line


def test_file_in_place_of_a_directory_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"), locks.hold(tmp_path / "file"):
        pass


@pytest.mark.parametrize(("error", "left"), [(InputError, []), (InUse, ["made"])])
def test_bad_input_clears_a_locked_directory_unless_another_process_writes_there(
    tmp_path: Path, error: type[InputError], left: list[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error), locks.hold(out), remove_on_input_error(out):
        (out / "made").mkdir()
        raise error("no")
    assert [path.name for path in entries(out)] == left
    assert out.exists() == bool(left)


def test_links_in_a_circle_are_refused_in_one_line(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(InputError, match="circle: cannot be written"), locks.hold(circle):
        pass
