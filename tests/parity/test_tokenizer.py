"""transformers' AutoTokenizer gives the ids that kdjax gives, whatever kdjax command or function
wrote the directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kdjax.config import ModelConfig
from kdjax.data.tokenizer import TextTokenizer
from kdjax.models import init, save_pretrained
from tests.corpora import DEMO_TEACHER, WORDS, make_tokenizer
from tests.golden import record_tokens


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
    assert theirs("a [MASK]")["input_ids"][2] == ours.named["[MASK]"]
    (ids,) = ours.ids(["a [MASK]"])
    assert ours.named["[MASK]"] not in ids
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
