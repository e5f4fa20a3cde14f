"""The table of the kinds of sources: what follows from its rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from kdjax.storage import hub
from kdjax.storage.prefixes import NAME_PREFIXES
from kdjax.text import source_kinds, sources, streams
from kdjax.text.document import Document, plain_text_documents
from kdjax.text.source_kinds import DATASET_KINDS, EXPECTED, FILE_KINDS, FileKind


def test_message_names_every_kind_of_file() -> None:
    assert EXPECTED == (
        ".txt (or .train, .dev, .test), .jsonl or .json files, as they are, .gz, .bz2, .xz or "
        ".zst, or .parquet files"
    )


def test_suffix_is_of_one_kind() -> None:
    suffixes = Counter(suffix for kind in FILE_KINDS for suffix in kind.suffixes)
    assert set(suffixes.values()) == {1}
    assert all(suffix == suffix.lower() for suffix in suffixes)


def test_prefixes_of_names_are_listed_for_every_reader_of_paths() -> None:
    datasets = [kind.prefix for kind in DATASET_KINDS]
    assert set(NAME_PREFIXES) == {hub.REPOSITORY_PREFIX, sources.PACKAGE, *datasets}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.txt", ".txt"),
        ("A.TXT.GZ", ".txt"),
        ("a.b.test", ".txt"),
        ("a.jsonl.zst", ".jsonl"),
        ("a.PARQUET", ".parquet"),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("parquet", None),
        (".txt", None),
    ],
)
def test_kind_of_a_file_follows_from_its_suffixes(name: str, suffix: str | None) -> None:
    kind = source_kinds.file_kind(Path("some.txt") / name)
    if suffix is None:
        assert kind is None
    else:
        assert kind is not None
        assert suffix in kind.suffixes


def test_further_kind_of_file_takes_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poems = FileKind((".poem",), ".poem", True, streams.check_readable, plain_text_documents)
    monkeypatch.setattr(source_kinds, "FILE_KINDS", (*FILE_KINDS, poems))
    (tmp_path / "a.poem").write_text("one\ntwo\n\nthree\n")
    assert list(sources.documents(f"{tmp_path}/*.poem", "text")) == [
        Document("one\ntwo", "one\ntwo"),
        Document("three", "three"),
    ]
