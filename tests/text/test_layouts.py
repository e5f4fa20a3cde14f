"""Documents of text files are paragraphs, lines or files, and a file of another layout is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.text import document, sources
from kdjax.text.document import ReadSettings
from kdjax.text.reading_notes import ReadingNotes, layout_hints
from kdjax.text.streams import TextError

TEXT = "one \ntwo\n\n \nthree\nfour\n\n"


def read(path: Path, layout: str) -> tuple[list[str], ReadingNotes]:
    notes = ReadingNotes()
    settings = ReadSettings(("text",), layout)
    texts = [document.text for document in sources.documents_of(path, settings, notes)]
    return texts, notes


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("paragraphs", ["one\ntwo", "three\nfour"]),
        ("lines", ["one", "two", "three", "four"]),
        ("files", ["one\ntwo\n\n\nthree\nfour"]),
    ],
)
def test_documents_are_what_the_layout_says(
    tmp_path: Path, layout: str, expected: list[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    assert read(tmp_path / "a.txt", layout)[0] == expected


@pytest.mark.parametrize(
    ("layout", "content", "hint"),
    [
        ("paragraphs", "one\ntwo\nthree\n", "data.documents 'lines' makes each line one"),
        ("paragraphs", "one\rtwo\r\rthree\r", "line ends of old Macs"),
        ("paragraphs", "one line\n", None),
        ("paragraphs", "one\r\n\r\ntwo\r\n", None),
        ("lines", "one\ntwo\n\nthree\nfour\n", "data.documents 'paragraphs' makes each group"),
        ("lines", "one\n\ntwo\n\nthree\n", None),
        ("lines", "one\rtwo", "line ends of old Macs"),
        ("files", "one\ntwo\n", None),
    ],
)
def test_file_that_looks_like_another_layout_is_said(
    tmp_path: Path, layout: str, content: str, hint: str | None
) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode())
    hints = list(layout_hints(read(tmp_path / "a.txt", layout)[1].layouts))
    assert len(hints) == (hint is not None)
    assert hint is None or hint in hints[0]


@pytest.mark.parametrize(
    ("layout", "content", "hint"),
    [
        ("paragraphs", "one\n" * 20, "or data.documents 'lines'"),
        ("paragraphs", "one\r" * 20, "line ends of old Macs"),
        ("lines", "one\r" * 20, "line ends of old Macs"),
        ("lines", "one " * 20, "expected shorter lines"),
        ("files", "one\n" * 20, "'paragraphs' or 'lines'"),
    ],
)
def test_document_that_is_too_long_says_which_layout_makes_shorter_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, content: str, hint: str
) -> None:
    monkeypatch.setattr(document, "DOCUMENT_BYTES", 40)
    (tmp_path / "a.txt").write_bytes(content.encode())
    with pytest.raises(TextError, match="line 1: here begins a document of more than") as e:
        read(tmp_path / "a.txt", layout)
    assert hint in str(e.value)
