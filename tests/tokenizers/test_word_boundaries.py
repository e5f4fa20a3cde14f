"""Where words begin, told by tokens alone, against the tokenizers' own words and the text's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from kdjax.config import TokenizerConfig
from kdjax.tokenizers import tokenizer_training
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.word_boundaries import WordBoundaries
from tests.golden import record_token_kinds, record_tokens

PROSE = (
    "The dog doesn't walk (at all), she said: \"3.14 isn't e-mail@home.org\"!",
    "tabs\tand\nlines\r\n  and   spaces , apart ",
    "snake_case CamelCase x+y=z 100% #tag ... --",
    "the dogs' café: Überfluß, naïve; -- x",
    "dog",
    "",
)


def read(path: Path, tokenizer: tokenizers.Tokenizer) -> tuple[WordBoundaries, TextTokenizer]:
    tokenizer.save(str(path))
    text_tokenizer = TextTokenizer.read(path)
    boundaries = text_tokenizer.word_boundaries()
    assert boundaries is not None
    return boundaries, text_tokenizer


@pytest.mark.parametrize("name", record_tokens.NORMALIZERS)
def test_wordpiece_words_are_the_tokenizers_own_on_hard_text(name: str, tmp_path: Path) -> None:
    path = record_tokens.write_tokenizer(tmp_path / "tokenizer.json", name)
    boundaries = TextTokenizer.read(path).word_boundaries()
    assert boundaries is not None
    for spans in TextTokenizer.read(path).spans((*record_tokens.TEXTS, *PROSE)):
        starts = np.diff(spans.words, prepend=-1) != 0
        assert np.array_equal(boundaries.starts(np.array(spans.ids, int)), starts)


MARKS = re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
WORD = re.compile(rf"[{MARKS}]|[^\s{MARKS}]+")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_words_of_other_kinds_stand_between_white_space_and_punctuation(
    kind: str, tmp_path: Path
) -> None:
    more = [f"the dog {number**5:x} walked {number**6:x}" for number in range(200)]
    config = TokenizerConfig(train=kind, size=300, alphabet=0 if kind == "bpe" else 90)
    trained = tokenizer_training.train(config, lambda: [*PROSE, *more], "texts")
    tokenizer = tokenizers.Tokenizer.from_str(trained.json)
    boundaries, _ = read(tmp_path / "tokenizer.json", tokenizer)
    for text in (*PROSE, *more[:20]):
        spaced = re.sub(r"\s", " ", text)
        encoding = tokenizer.encode(spaced, add_special_tokens=False)
        starts = boundaries.starts(np.array(encoding.ids, int))
        # Where tokens and words begin; a token that is nothing but a space begins with the next.
        begins_token = set()
        begins_word = set()
        is_pending = False
        for token, (begin, _), is_start in zip(
            encoding.tokens, encoding.offsets, starts, strict=True
        ):
            is_pending |= bool(is_start)
            if token in ("Ġ", "▁"):
                continue
            begins_token.add(begin)
            if is_pending:
                begins_word.add(begin)
            is_pending = False
        # Several marks may be one token.
        expected = {word.start() for word in WORD.finditer(spaced)}
        assert begins_word == expected & begins_token


def test_roberta_layout_begins_words_at_spaces_and_at_the_texts_beginning(tmp_path: Path) -> None:
    boundaries, tokenizer = read(tmp_path / "tokenizer.json", record_token_kinds.roberta())
    (ids,) = tokenizer.ids(["dog the dog, dog"])
    starts = boundaries.starts(np.array(ids))
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokens = [backend.id_to_token(index) for index in ids]
    assert tokens == ["dog", "Ġthe", "Ġ", "dog", ",", "Ġ", "dog"]
    assert starts.tolist() == [True, True, True, False, True, True, False]


def test_contractions_and_marks_of_several_bytes_follow_the_published_rule(tmp_path: Path) -> None:
    boundaries, tokenizer = read(tmp_path / "tokenizer.json", record_token_kinds.byte_level())
    vocabulary = tokenizer._backend.get_vocab(with_added_tokens=True)
    assert boundaries.begins[vocabulary["'"]]
    assert boundaries.ends[vocabulary["'"]]
    assert boundaries.ends[vocabulary["Ċ"]]
    # Bytes of a character alone say nothing: the word goes on.
    for token in ("â", "Ģ", "ľ"):
        assert not boundaries.begins[vocabulary[token]]
        assert not boundaries.ends[vocabulary[token]]


def test_words_that_are_marked_where_they_end_are_found(tmp_path: Path) -> None:
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "d", "o", "g", "g</w>", "do", "o</w>"]
    model = models.BPE(
        {name: index for index, name in enumerate(names)},
        [("d", "o")],
        unk_token="<unk>",
        end_of_word_suffix="</w>",
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    boundaries, text_tokenizer = read(tmp_path / "tokenizer.json", tokenizer)
    (spans,) = text_tokenizer.spans(["dog do go dog"])
    starts = np.diff(spans.words, prepend=-1) != 0
    assert np.array_equal(boundaries.starts(np.array(spans.ids)), starts)


def test_entries_without_marks_have_no_boundaries(tmp_path: Path) -> None:
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "d", "o"]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert TextTokenizer.read(tmp_path / "tokenizer.json").word_boundaries() is None


def test_stored_boundaries_are_read_as_they_were(tmp_path: Path) -> None:
    boundaries, _ = read(tmp_path / "tokenizer.json", record_token_kinds.pieces())
    stored = json.loads(json.dumps(boundaries.to_json()))
    again = WordBoundaries.from_json(stored)
    assert np.array_equal(again.begins, boundaries.begins)
    assert np.array_equal(again.ends, boundaries.ends)
    assert 0 < boundaries.begins.sum() < len(boundaries.begins)
    assert boundaries.ends.any()
    assert boundaries.starts(np.array([], int)).shape == (0,)
