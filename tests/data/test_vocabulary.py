"""A model's vocabulary is compared entry by entry, whatever characters its entries are."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.data import vocabulary
from kdjax.errors import InputError
from tests.corpora import SPECIAL, make_tokenizer

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
