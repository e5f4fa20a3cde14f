"""transformers' AutoTokenizer gives the ids that kdjax gives, whatever kdjax command or function
wrote the directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from kdjax.config import ModelConfig, TokenizerConfig
from kdjax.data.tasks.encoding import frame
from kdjax.errors import InputError
from kdjax.models import init, save_pretrained
from kdjax.tokenizers import tokenizer_training
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_files import find_tokenizer
from tests.golden import record_token_kinds, record_tokens
from tests.support.corpora import DEMO_TEACHER, WORDS, make_tokenizer


def test_recorded_ids_are_what_transformers_gives() -> None:
    assert record_tokens.record() == json.loads(record_tokens.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("model_type", record_tokens.CLASSES)
def test_special_tokens_in_a_text_are_special_to_transformers_alone(
    model_type: str, tmp_path: Path
) -> None:
    directory = record_tokens.save(tmp_path, "cased", model_type)
    theirs = AutoTokenizer.from_pretrained(directory)
    ours = TextTokenizer.read(directory / "tokenizer.json")
    # It is how a user asks for what is masked; to a corpus it is text.
    assert theirs("a [MASK]")["input_ids"][2] == ours.special.mask
    (ids,) = ours.ids(["a [MASK]"])
    assert ours.special.mask not in ids
    assert (
        theirs("a [MASK]", split_special_tokens=True, add_special_tokens=False)["input_ids"] == ids
    )


def test_demo_teacher_gives_the_same_ids() -> None:
    theirs = AutoTokenizer.from_pretrained(DEMO_TEACHER, split_special_tokens=True)
    ours = TextTokenizer.read(DEMO_TEACHER / "tokenizer.json")
    for text, ids in zip(record_tokens.TEXTS, ours.ids(record_tokens.TEXTS), strict=True):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "given.json")
    theirs = AutoTokenizer.from_pretrained(_saved_with(tmp_path))
    long = " ".join(WORDS)
    (ids,) = TextTokenizer.read(tmp_path / "given.json").ids([long])
    assert theirs(long, add_special_tokens=False)["input_ids"] == ids
    assert theirs("w1", add_special_tokens=False)["input_ids"] == [6]


def _saved_with(directory: Path) -> Path:
    """Save a model with the tokenizer `given.json` of a directory."""

    config = ModelConfig(layers=1, width=8, heads=2, ffn=8, vocab_size=60)
    save_pretrained(init(config, 0), directory / "saved", tokenizer=directory / "given.json")
    return directory / "saved"


def test_recorded_kinds_are_what_transformers_gives() -> None:
    recorded = json.loads(record_token_kinds.FILE.read_text(encoding="utf-8"))
    assert record_token_kinds.record() == recorded


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_trained_tokenizer_gives_the_same_ids_to_hard_text(kind: str, tmp_path: Path) -> None:
    texts = [*record_tokens.TEXTS, *record_token_kinds.WORDS]
    # Some text to fill the vocabulary: numbers in hexadecimal digits, and the documents' own words.
    more = [f"the dog {number**5:x} walked {number**6:x}" for number in range(400)]
    config = TokenizerConfig(train=kind, size=300, alphabet=0 if kind == "bpe" else 90)
    trained = tokenizer_training.train(config, lambda: [*texts, *more], "texts")
    model = ModelConfig(layers=1, width=8, heads=2, ffn=8, vocab_size=300)
    tokenizer_training.write_directory(trained, tmp_path, model)
    theirs = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
    ours = TextTokenizer.read(tmp_path / "tokenizer.json")
    assert theirs.is_fast
    assert len(theirs) == ours.vocab_size == 300
    for text, spans in zip(texts, ours.spans(texts), strict=True):
        encoded = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert encoded["input_ids"] == spans.ids
        assert [end for _, end in encoded["offset_mapping"]] == spans.ends
    # What a user asks for is masked; the space before the mask goes with it.
    asked = AutoTokenizer.from_pretrained(tmp_path)
    assert asked(f"dog {asked.mask_token}")["input_ids"].count(ours.special.mask) == 1
    decoded = theirs.decode(theirs("the dog")["input_ids"], skip_special_tokens=True)
    assert decoded.strip() == "the dog"


def test_sentencepiece_model_is_converted_to_the_ids_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = tmp_path / "camembert"
    directory.mkdir()
    lines = [f"the dog {number**5:x} walked {number**6:x} naïve café" for number in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(directory / "sentencepiece.bpe"),
        vocab_size=200,
        minloglevel=2,
    )
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    path = find_tokenizer(directory)
    ours = TextTokenizer.read(path)
    theirs = AutoTokenizer.from_pretrained(directory)
    assert (theirs.mask_token_id, theirs.pad_token_id) == (ours.special.mask, ours.special.pad)
    texts = [*lines[:20], "Überfluß, (the) dog."]
    for text, ids in zip(texts, ours.ids(texts), strict=True):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    (first, second) = ours.ids(texts[:2])
    assert frame(first, second, ours.framing, 512)[0] == theirs(*texts[:2])["input_ids"]
    # A model that is none is one line.
    (directory / "sentencepiece.bpe.model").write_bytes(b"pieces")
    with pytest.raises(InputError, match=r"transformers cannot read its tokenizer \("):
        find_tokenizer(directory)
