"""Directories that are made whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.storage import locks
from kdjax.storage.files import LOCK, entries
from kdjax.storage.whole_directory import whole_directory


def test_directory_appears_once_its_block_has_ended(tmp_path: Path) -> None:
    out = tmp_path / "above" / "out"
    with whole_directory(out) as unfinished:
        (unfinished / "a.txt").write_text("a")
        assert not out.exists()
    assert [path.name for path in entries(out)] == ["a.txt"]
    assert entries(out.parent) == [out]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_error_in_the_block_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fill() -> None:
        with whole_directory(tmp_path / "out") as unfinished:
            (unfinished / "a.txt").write_text("a")
            raise error

    with pytest.raises((InputError, KeyboardInterrupt), match=r"out: cannot be written|^$"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_lock_of_an_empty_directory_goes_over_to_what_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locks.hold(out):
        with whole_directory(out) as unfinished:
            (unfinished / "a.txt").write_text("a")
        assert (out / LOCK).exists()
    assert [path.name for path in out.iterdir()] == ["a.txt"]


def test_directory_that_holds_something_is_left_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with (
        pytest.raises(InputError, match="out: cannot be written"),
        whole_directory(out) as unfinished,
    ):
        (unfinished / "a.txt").write_text("a")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert entries(tmp_path) == [out]
