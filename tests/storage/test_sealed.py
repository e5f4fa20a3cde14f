"""A sealed file is read as it was written; an edit, or another file's content, is one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.storage.sealed import SEAL, read_sealed, write_sealed


@dataclass(frozen=True)
class Note:
    """A content with a number, a text and a list."""

    value: float
    text: str
    places: tuple[int, ...]


NOTE = Note(0.1, "ρ", (1, 2))


def test_sealed_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_sealed(path, NOTE)
    assert read_sealed(Note, path) == (NOTE, True)


@pytest.mark.parametrize("field", ["value", "text", "places", SEAL])
def test_edited_field_of_a_sealed_file_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "note.json"
    write_sealed(path, NOTE)
    content = json.loads(path.read_text())
    content[field] = {"value": 0.2, "text": "r", "places": [2, 1], SEAL: "0" * 64}[field]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"note.json: its content has another digest"):
        read_sealed(Note, path)


def test_file_under_another_name_is_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / "note.json", NOTE)
    shutil.copy(tmp_path / "note.json", tmp_path / "other.json")
    with pytest.raises(InputError, match=r"other.json: its content has another digest"):
        read_sealed(Note, tmp_path / "other.json")


def test_file_without_a_seal_is_read_and_said_to_have_none(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_sealed(path, NOTE)
    content = json.loads(path.read_text())
    del content[SEAL]
    path.write_text(json.dumps(content))
    assert read_sealed(Note, path) == (NOTE, False)
