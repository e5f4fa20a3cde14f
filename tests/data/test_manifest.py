"""A corpus's manifest is the one that was written, or refused."""

from __future__ import annotations

from dataclasses import replace
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


def test_words_of_whole_passes_are_those_of_the_text(corpus: Corpus) -> None:
    manifest = corpus.manifest
    assert manifest.text is not None
    tokens = manifest.tokens["train"]
    words = manifest.text.words["train"]
    assert 0 < words < tokens
    assert manifest.words_in(0) == 0
    assert manifest.words_in(tokens) == words
    assert manifest.words_in(3 * tokens) == 3 * words
    assert manifest.words_in(tokens / 2) == pytest.approx(words / 2, abs=1)


def test_manifest_without_figures_knows_no_words(corpus: Corpus) -> None:
    assert replace(corpus.manifest, text=None).words_in(100) is None
