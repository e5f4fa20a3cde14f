"""Tokenizers of other files than a tokenizer.json: converted to the ids that transformers gives."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kdjax.data.tasks.encoding import frame
from kdjax.errors import InputError
from kdjax.tokenizers import vocabulary
from kdjax.tokenizers.special_tokens import SpecialTokens
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.tokenizer_files import find_tokenizer, locate_tokenizer
from tests.golden import record_token_kinds, record_tokens

IDS = json.loads(record_tokens.FILE.read_text(encoding="utf-8"))
KINDS = json.loads(record_token_kinds.FILE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kdjax" / "tokenizers"


def bert(directory: Path, settings: dict[str, Any] | None) -> Path:
    """Write a directory of a vocab.txt, and of a tokenizer_config.json with these settings."""
    directory.mkdir(exist_ok=True)
    entries = record_tokens.vocabulary()
    lines = "".join(f"{entry}\n" for entry in sorted(entries, key=lambda entry: entries[entry]))
    (directory / "vocab.txt").write_text(lines, encoding="utf-8")
    if settings is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def roberta(directory: Path) -> Path:
    """Write a directory of a vocab.json and a merges.txt."""
    directory.mkdir(exist_ok=True)
    record_token_kinds.roberta().model.save(str(directory))
    return directory


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("uncased", {"do_lower_case": True}),
        ("uncased with accents", {"do_lower_case": True, "strip_accents": False}),
        ("cased", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}),
        (
            "cased, Chinese words whole",
            {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False},
        ),
    ],
)
def test_vocab_txt_gives_the_ids_of_transformers(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = TextTokenizer.read(locate_tokenizer(str(bert(tmp_path / "bert", settings))))
    assert list(tokenizer.ids(record_tokens.TEXTS)) == IDS[name]
    assert tokenizer.special == SpecialTokens(pad=0, unknown=1, start=2, end=3, mask=4)
    assert tokenizer.framing.pair == ((2,), (3,), (3,))


def test_vocab_json_and_merges_give_the_ids_and_pairs_of_transformers(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.read(find_tokenizer(roberta(tmp_path / "roberta")))
    recorded = KINDS["roberta"]
    ids = list(tokenizer.ids(record_tokens.TEXTS))
    assert ids == recorded["ids"]
    framed = [frame(a, b, tokenizer.framing, 12)[0] for a, b in itertools.pairwise(ids)]
    assert framed[: len(recorded["pairs"])] == recorded["pairs"]
    assert tokenizer.special == SpecialTokens(pad=1, unknown=3, start=0, end=2, mask=265)


def test_tokenizer_json_of_a_directory_goes_before_all_others(tmp_path: Path, cache: Path) -> None:
    directory = bert(tmp_path / "bert", None)
    path = record_tokens.write_tokenizer(directory / "tokenizer.json", "cased")
    assert find_tokenizer(directory) == find_tokenizer(path) == path
    assert not cache.exists()


def test_what_was_converted_is_found_again_until_a_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = bert(tmp_path / "bert", {"do_lower_case": True})
    first = find_tokenizer(directory)
    before = first.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("kdjax.tokenizers.tokenizer_files._write", None)
        assert find_tokenizer(directory) == first
    bert(directory, {"do_lower_case": False})
    assert find_tokenizer(directory) != first
    assert first.read_bytes() == before
    assert len(list(cache.iterdir())) == 2


def test_entries_of_a_teacher_without_tokenizer_json_are_compared(tmp_path: Path) -> None:
    ours = record_token_kinds.roberta()
    ours.save(str(tmp_path / "tokenizer.json"))
    directory = roberta(tmp_path / "roberta")
    vocabulary.check(tmp_path / "tokenizer.json", directory, 266)
    entries = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    entries["Ġthe"], entries["dog"] = entries["dog"], entries["Ġthe"]
    (directory / "vocab.json").write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(InputError, match=r"entry 262 is 'Ġthe', expected 'dog' as in"):
        vocabulary.check(tmp_path / "tokenizer.json", directory, 266)


@pytest.mark.parametrize("settings", [None, {}, {"do_lower_case": "yes"}])
def test_vocab_txt_that_does_not_say_its_case_is_refused(
    settings: dict[str, Any] | None, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"tokenizer_config\.json: do_lower_case is .* expected"):
        find_tokenizer(bert(tmp_path / "bert", settings))


def test_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds no tokenizer, expected tokenizer\.json, vocab"):
        find_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["{}", "["])
def test_damaged_bpe_vocabulary_is_refused(content: str, tmp_path: Path) -> None:
    directory = roberta(tmp_path / "roberta")
    (directory / "vocab.json").write_text(content)
    with pytest.raises(InputError, match=r"vocab\.json and merges\.txt are not a BPE's"):
        find_tokenizer(directory)


def test_bpe_without_merges_is_read(tmp_path: Path) -> None:
    # No pair is merged, which is a tokenizer still.
    directory = roberta(tmp_path / "roberta")
    (directory / "merges.txt").write_text("#version: 0.2\n")
    assert TextTokenizer.read(find_tokenizer(directory)).vocab_size == 266


def test_bpe_of_letters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "a": 1}')
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(InputError, match=r"vocab\.json: lacks entries for some bytes"):
        find_tokenizer(tmp_path)


def test_missing_transformers_is_one_line_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_module = importlib.import_module

    def absent(name: str) -> ModuleType:
        if name == "transformers":
            raise ImportError("no such library")
        return import_module(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    (tmp_path / "spiece.model").write_bytes(b"pieces")
    with pytest.raises(InputError, match=r"needs transformers .*pip install 'kdjax\[convert\]'"):
        find_tokenizer(tmp_path)
