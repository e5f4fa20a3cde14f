"""A corpus's tokenizer has the entries of a model's vocabulary, but for unused ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kdjax.errors import InputError
from kdjax.tokenizers import vocabulary
from tests.support.corpora import SPECIAL, make_tokenizer

WORDS = ("a", "\u2028", "\x85", "\x0b", "\x1c", "b")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_entries_may_be_characters_that_unicode_counts_as_line_ends(
    tmp_path: Path, end: str, last: str
) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json", words=WORDS)
    text = end.join((*SPECIAL, *WORDS)) + (end if last else "")
    (tmp_path / "vocab.txt").write_bytes(text.encode())
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "vocab.txt").rename(model / "vocab.txt")
    vocabulary.check(tokenizer, model, len(SPECIAL) + len(WORDS))


def test_first_entry_that_differs_is_named(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "ours" / "tokenizer.json", words=WORDS)
    (tmp_path / "vocab.txt").write_bytes("\n".join((*SPECIAL, "a", "c")).encode())
    with pytest.raises(InputError, match=r"entry 6 is '\\u2028', expected 'c'"):
        vocabulary.check(tokenizer, tmp_path, len(SPECIAL) + len(WORDS))


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
