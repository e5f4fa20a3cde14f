"""A corpus's tokenizer beside a model's vocabulary: the same entries, but for unused ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kdjax.data import vocabulary
from kdjax.errors import InputError

SHARED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(SHARED), encoding="utf-8")
    return tmp_path


def write_tokenizer(path: Path, entries: Sequence[str]) -> Path:
    vocab = {entry: index for index, entry in enumerate(entries)}
    wordpiece: dict[str, Any] = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab}
    wordpiece |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    path.write_text(json.dumps({"version": "1.0", "model": wordpiece}), encoding="utf-8")
    return path


def test_same_entries_are_taken_whatever_the_padding_of_the_embedding(model: Path) -> None:
    vocabulary.check(write_tokenizer(model / "t.json", SHARED), model, 64)


def test_unused_entries_may_be_in_either(model: Path) -> None:
    more = write_tokenizer(model / "t.json", [*SHARED, "[unused0]", "[unused1]"])
    vocabulary.check(more, model, 9)
    (model / "vocab.txt").write_text("\n".join([*SHARED, "[unused0]", "madeupword0000"]))
    vocabulary.check(write_tokenizer(model / "t.json", SHARED), model, 9)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([*SHARED, "c"], r"entry 7 is 'c', expected None"),
        (SHARED[:-1], r"entry 6 is None, expected 'b'"),
        ([*SHARED[:-1], "[unused0]"], r"entry 6 is '\[unused0\]', expected 'b'"),
        ([*SHARED, "[unused0]", "[unused1]", "[unused2]"], r"has 10 entries.*embedding has 9"),
    ],
)
def test_other_entries_are_refused_by_name(
    model: Path, entries: Sequence[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        vocabulary.check(write_tokenizer(model / "t.json", entries), model, 9)
