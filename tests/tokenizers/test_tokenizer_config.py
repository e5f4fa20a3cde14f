"""What is written beside a tokenizer.json, for transformers to give the ids that kdjax gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdjax.errors import InputError
from kdjax.models import init, pretrained_config, save_pretrained
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_config import NAME, tokenizer_config
from tests.golden import record_tokens
from tests.models.conftest import config_with
from tests.models.fixtures import ConfigWith
from tests.support.corpora import DEMO_TEACHER, make_tokenizer

__all__ = ["config_with"]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", record_tokens.NORMALIZERS)
def test_ids_of_hard_text_equal_transformers(name: str, tmp_path: Path) -> None:
    tokenizer = TextTokenizer.read(record_tokens.write_tokenizer(tmp_path / "t.json", name))
    assert list(tokenizer.ids(record_tokens.TEXTS)) == read(record_tokens.FILE)[name]


@pytest.mark.parametrize(
    ("name", "lower", "accents", "chinese"),
    [
        ("uncased", True, None, True),
        ("uncased with accents", True, False, True),
        ("cased", False, None, True),
        ("cased without accents", False, True, True),
        ("cased, Chinese words whole", False, False, False),
    ],
)
def test_saved_directory_says_how_its_tokenizer_reads(
    name: str, lower: bool, accents: bool | None, chinese: bool, tmp_path: Path
) -> None:
    # What the recorded ids were made with, for every class of model.
    for model_type in record_tokens.CLASSES:
        directory = tmp_path / model_type
        directory.mkdir()
        assert read(record_tokens.save(directory, name, model_type) / NAME) == {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "do_lower_case": lower,
            "strip_accents": accents,
            "tokenize_chinese_chars": chinese,
            "model_max_length": record_tokens.MAX_POSITIONS,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }


def test_model_of_one_token_type_asks_for_none(config_with: ConfigWith, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json")
    save_pretrained(init(config_with(type_vocab_size=1), 0), tmp_path / "out", tokenizer=tokenizer)
    assert read(tmp_path / "out" / NAME)["model_input_names"] == ["input_ids", "attention_mask"]


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        (None, (False, False, False)),
        ({"type": "Lowercase"}, (True, False, False)),
        (
            {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]},
            (False, True, False),
        ),
        ("no object", (False, False, False)),
    ],
)
def test_other_normalizers_are_described_as_far_as_bert_has_words(
    normalizer: Any, expected: tuple[bool, bool, bool], config_with: ConfigWith
) -> None:
    settings = tokenizer_config({"normalizer": normalizer}, config_with(), Path("tokenizer.json"))
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    assert tuple(settings[name] for name in names) == expected


@pytest.mark.parametrize("text", ["[]", "{", "null"])
def test_tokenizer_that_is_no_object_is_refused(
    text: str, config_with: ConfigWith, tmp_path: Path
) -> None:
    (tmp_path / "given.json").write_text(text)
    with pytest.raises(InputError, match=r"given\.json: expected a"):
        save_pretrained(init(config_with(), 0), tmp_path / "out", tokenizer=tmp_path / "given.json")
    assert [path.name for path in tmp_path.iterdir()] == ["given.json"]


def test_demo_teacher_has_what_is_written_today() -> None:
    content = read(DEMO_TEACHER / "tokenizer.json")
    assert read(DEMO_TEACHER / NAME) == tokenizer_config(
        content, pretrained_config(DEMO_TEACHER), DEMO_TEACHER
    )
