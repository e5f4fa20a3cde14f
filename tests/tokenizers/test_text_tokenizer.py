"""Token ids of text, whatever the file's own settings are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdjax.errors import InputError
from kdjax.tokenizers.special_tokens import SpecialTokens
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from tests.support.corpora import SPECIAL, VOCABULARY, WORDS, make_tokenizer


def test_token_ids_have_no_special_tokens_padding_or_truncation(tokenizer: Path) -> None:
    read = TextTokenizer.read(tokenizer)
    long = " ".join(WORDS)
    short = "w3"
    assert list(read.ids([long, short, "w0 nothing"])) == [list(range(5, VOCABULARY)), [8], [5, 1]]
    assert list(read.ids([short] * 600)) == [[8]] * 600
    assert read.vocab_size == VOCABULARY
    assert read.special == SpecialTokens(pad=0, unknown=1, start=2, end=3, mask=4)
    assert read.special_ids == (0, 1, 2, 3, 4)


def test_special_tokens_spelt_out_in_a_text_are_text(tokenizer: Path) -> None:
    (ids,) = TextTokenizer.read(tokenizer).ids(["w1 [MASK] w2 [SEP]"])
    assert ids[0] == 6
    assert 7 in ids
    assert not {0, 2, 3, 4} & set(ids)


def test_other_special_tokens_count_as_special(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path / "tokenizer.json", special=(*SPECIAL, "[ENTITY]"))
    assert TextTokenizer.read(path).special_ids == (0, 1, 2, 3, 4, 5)


def test_tokenizer_whose_roles_cannot_be_told_is_refused_with_their_keys(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path / "tokenizer.json", special=("[PAD]", "[UNK]", "[CLS]"))
    expected = (
        r"tokenizer.json: cannot tell which entry is its end and mask token, expected sep_token "
        r"and mask_token in tokenizer_config.json or special_tokens_map.json beside"
    )
    with pytest.raises(InputError, match=expected):
        TextTokenizer.read(path)


def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected a Hugging Face tokenizer\.json"):
        TextTokenizer.read(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"missing\.json: cannot be read"):
        TextTokenizer.read(tmp_path / "missing.json")


def test_unknown_token_that_is_no_entry_is_refused_with_the_file(tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path / "tokenizer.json")
    values = json.loads(path.read_text())
    values["model"]["unk_token"] = "[NONE]"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot tokenise a text \("):
        list(TextTokenizer.read(path).ids(["unheard of"]))
