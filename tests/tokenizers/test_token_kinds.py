"""Byte-level BPE and Unigram tokenizers: the ids, places and frames that transformers gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdjax.data.tasks.encoding import frame
from kdjax.errors import InputError
from kdjax.tokenizers.special_tokens import SpecialTokens
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_config import padding_token, tokenizer_config
from tests.golden import record_token_kinds
from tests.golden.record_tokens import TEXTS
from tests.models.conftest import config_with
from tests.models.fixtures import ConfigWith
from tests.support.corpora import make_tokenizer

__all__ = ["config_with"]

RECORDED = json.loads(record_token_kinds.FILE.read_text(encoding="utf-8"))


def written(name: str, directory: Path) -> Path:
    path = directory / "tokenizer.json"
    record_token_kinds.KINDS[name]().save(str(path))
    return path


def edited(name: str, directory: Path, **changes: Any) -> Path:
    path = written(name, directory)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", record_token_kinds.KINDS)
def test_ids_and_places_of_hard_text_equal_transformers(name: str, tmp_path: Path) -> None:
    tokenizer = TextTokenizer.read(written(name, tmp_path))
    assert list(tokenizer.ids(TEXTS)) == RECORDED[name]["ids"]
    assert [spans.ends for spans in tokenizer.spans(TEXTS)] == RECORDED[name]["ends"]


@pytest.mark.parametrize("name", record_token_kinds.KINDS)
def test_framed_texts_and_pairs_equal_transformers(name: str, tmp_path: Path) -> None:
    tokenizer = TextTokenizer.read(written(name, tmp_path))
    ids = list(tokenizer.ids(TEXTS))
    length = record_token_kinds.LENGTH
    singles = [frame(text, None, tokenizer.framing, length)[0] for text in ids]
    assert singles == RECORDED[name]["singles"]
    for first, second, expected in zip(ids, ids[1:], RECORDED[name]["pairs"], strict=False):
        framed, begin = frame(first, second, tokenizer.framing, length)
        assert framed == expected
        # Behind <s>, the first text and </s></s>.
        assert framed[begin - 2 : begin] == [tokenizer.special.end] * 2


@pytest.mark.parametrize("name", record_token_kinds.KINDS)
def test_roles_equal_those_that_transformers_reads(
    name: str, tmp_path: Path, config_with: ConfigWith
) -> None:
    path = written(name, tmp_path)
    special = TextTokenizer.read(path).special
    recorded = RECORDED[name]["special"]
    names = {"pad": "pad", "unknown": "unk", "start": "cls", "end": "sep", "mask": "mask"}
    assert special == SpecialTokens(**{role: recorded[key] for role, key in names.items()})
    # Without token types where the model has one of them.
    assert RECORDED[name]["inputs"] == ["input_ids", "attention_mask"]
    content = json.loads(path.read_text(encoding="utf-8"))
    assert tokenizer_config(content, config_with(type_vocab_size=1), path)["mask_token"] == "<mask>"
    assert padding_token(content, path) == special.pad
    assert padding_token([], path) is None


@pytest.mark.parametrize("name", record_token_kinds.KINDS)
def test_special_tokens_spelt_out_in_a_text_are_text_of_every_kind(
    name: str, tmp_path: Path
) -> None:
    tokenizer = TextTokenizer.read(written(name, tmp_path))
    (ids,) = tokenizer.ids(["<s> a<mask>b <pad></s> <unk>"])
    unknown = tokenizer.special.unknown
    assert set(ids) & set(tokenizer.special_ids) <= {unknown}


def test_companions_name_roles_before_the_post_processor_and_usual_names(tmp_path: Path) -> None:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[HIDE]", "[FILL]")
    path = make_tokenizer(tmp_path / "tokenizer.json", special=special)
    alone = TextTokenizer.read(path).special
    assert (alone.mask, alone.pad) == (4, 0)
    # The first file that names a role counts; a token may come with its properties.
    config = {"mask_token": {"content": "[HIDE]", "lstrip": True}, "cls_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"mask_token": "[MASK]", "pad_token": "[FILL]"})
    )
    special_tokens = TextTokenizer.read(path).special
    assert special_tokens == SpecialTokens(pad=6, unknown=1, start=2, end=3, mask=5)
    # What stands in for a key of BERT's is asked after it, in whichever file that is.
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "[HIDE]"}')
    (tmp_path / "special_tokens_map.json").write_text('{"cls_token": "[FILL]"}')
    assert TextTokenizer.read(path).special.start == 6
    (tmp_path / "special_tokens_map.json").unlink()
    assert TextTokenizer.read(path).special.start == 5
    # Under another name the file has no companions.
    path.rename(tmp_path / "other.json")
    assert TextTokenizer.read(tmp_path / "other.json").special == alone


def test_role_of_two_usual_names_cannot_be_told(tmp_path: Path) -> None:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<mask>")
    path = make_tokenizer(tmp_path / "tokenizer.json", special=special)
    with pytest.raises(InputError, match=r"which entry is its mask token, expected mask_token in"):
        TextTokenizer.read(path)
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": "<mask>"}')
    assert TextTokenizer.read(path).special.mask == 5
    # A word that looks like it is none where another is marked as special.
    path = make_tokenizer(tmp_path / "tokenizer.json", words=("<mask>", "<pad>"))
    (tmp_path / "special_tokens_map.json").unlink()
    assert TextTokenizer.read(path).special.mask == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mask_token": "[NONE]"}', r"mask_token is '\[NONE\]', expected an entry of tokenizer"),
        ("[]", r"tokenizer_config\.json: expected an object, found \[\]"),
        ("{", r"tokenizer_config\.json: "),
    ],
)
def test_companion_that_names_no_entry_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = make_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        TextTokenizer.read(path)


def test_template_of_several_steps_and_tokens_frames_as_the_library_does(tmp_path: Path) -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "head", "type_id": 0}}, {"Sequence": {"id": "A"}}],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "head", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            "head": {"id": "head", "ids": [0, 2], "tokens": ["<s>", "</s>"]},
        },
    }
    template["single"][1]["Sequence"]["type_id"] = 0
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    steps = {"type": "Sequence", "processors": [{**byte_level, "use_regex": True}, template]}
    tokenizer = TextTokenizer.read(edited("bpe", tmp_path, post_processor=steps))
    assert tokenizer.framing.single == ((0, 2), ())
    assert tokenizer.framing.pair == ((), (0, 2), ())
    # A single text ends without a token, so that `</s>` is found by its name.
    assert tokenizer.special.end == 2


@pytest.mark.parametrize(
    ("single", "message"),
    [
        ([{"Sequence": {"id": "B", "type_id": 0}}], r"post_processor frames \(1,\), expected each"),
        ([], r"post_processor frames \(\), expected each"),
    ],
)
def test_template_without_its_text_is_refused(single: Any, message: str, tmp_path: Path) -> None:
    template = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    with pytest.raises(InputError, match=f"{message}|cannot tell|expected a Hugging Face"):
        TextTokenizer.read(edited("bpe", tmp_path, post_processor=template))
