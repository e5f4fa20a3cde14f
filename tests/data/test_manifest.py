"""A corpus's manifest is the one that was written, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.data.corpus import Corpus
from kdjax.data.manifest import Manifest
from kdjax.errors import InputError


def test_changed_or_foreign_manifest_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    path = tmp_path / "manifest.json"
    good = (corpus.directory / "manifest.json").read_text()
    for text, message in (
        (good.replace('"length": 24', '"length": 25', 1), "does not match its own digest"),
        (good.replace('"version": 1', '"version": 0'), "is of version 0, expected 1"),
        (good.replace('"shards"', '"shreds"'), "not a corpus's manifest"),
        (good[: len(good) // 2], "expected a JSON file"),
    ):
        assert text != good
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            Manifest.read(tmp_path)
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        Manifest.read(tmp_path / "nowhere")
