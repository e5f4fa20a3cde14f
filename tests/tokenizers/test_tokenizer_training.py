"""Trained byte-level BPE and Unigram vocabularies: of the size asked for, always the same bytes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tokenizers

from kdjax.config import DataConfig, TokenizerConfig
from kdjax.data.manifest import Manifest
from kdjax.data.prepare.local import prepare
from kdjax.errors import InputError
from kdjax.storage.files import digest
from kdjax.tokenizers import tokenizer_training
from kdjax.tokenizers.special_tokens import SpecialTokens
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from tests.support.corpora import SPECIAL, make_corpus, make_tokenizer
from tests.tokenizers.test_wordpiece import ROOT, config

__all__ = ["config"]

EARLIER_UNSIGNED = ("sources", "digest", "text")
"""Fields of a manifest that its digest did not depend on in earlier versions."""
SETTINGS = {
    "bpe": TokenizerConfig(train="bpe", size=300),
    "unigram": TokenizerConfig(train="unigram", size=120, alphabet=26),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_vocabulary_of_each_kind_has_exactly_the_size_and_its_special_tokens(
    kind: str, config: DataConfig, tmp_path: Path
) -> None:
    for size in (SETTINGS[kind].size, SETTINGS[kind].size + 1):
        training = replace(SETTINGS[kind], size=size)
        trained = tokenizer_training.train_on_corpus(replace(config, tokenizer=training))
        path = tmp_path / f"{size}.json"
        path.write_text(trained.json, encoding="utf-8")
        read = TextTokenizer.read(path)
        assert trained.size == read.vocab_size == size
        # RoBERTa's and XLM-R's: padding is 1.
        assert (read.special.start, read.special.pad, read.special.end) == (0, 1, 2)
        assert read.special_ids == tuple(range(4 if kind == "bpe" else 5))
        vocabulary = tokenizers.Tokenizer.from_str(trained.json).get_vocab(with_added_tokens=True)
        assert sorted(vocabulary.values()) == list(range(size))
        # Documents that are held out are not seen.
        assert not any("qzx" in entry for entry in vocabulary)


PROGRAM = """
import sys
from kdjax.config import DataConfig, TokenizerConfig
from kdjax.tokenizers import tokenizer_training
kind, size, alphabet = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
training = TokenizerConfig(train=kind, size=size, alphabet=alphabet)
config = DataConfig(files=sys.argv[1], validation=0.2, tokenizer=training)
sys.stdout.write(tokenizer_training.train_on_corpus(config).json)
"""


@pytest.mark.parametrize("kind", SETTINGS)
def test_threads_do_not_change_the_bytes_of_any_kind(kind: str, config: DataConfig) -> None:
    training = SETTINGS[kind]
    expected = tokenizer_training.train_on_corpus(replace(config, tokenizer=training)).json
    settings = [str(config.files), kind, str(training.size), str(training.alphabet)]
    # A process of its own has hash tables in an order of its own.
    for threads in ("1", "3"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, *settings],
            env={**environment, "TOKENIZERS_PARALLELISM": "true"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
        assert ended.stdout == expected


def test_byte_level_bpe_knows_all_text_and_unigram_its_alphabet(
    config: DataConfig, tmp_path: Path
) -> None:
    text = "été ☃ 日本 \U0001f600 e"
    unknown = {}
    for kind, training in SETTINGS.items():
        changed = replace(config, tokenizer=training)
        manifest = prepare(changed, None, tmp_path / kind)
        tokenizer = TextTokenizer.read(tmp_path / kind / "tokenizer.json")
        (ids,) = tokenizer.ids([text])
        unknown[kind] = tokenizer.special.count_unknown(ids)
        # What is measured of the text holds for each kind.
        assert manifest.text is not None
        by_word, by_character = manifest.text.rates(manifest.text_tokens)
        assert by_word > 1 > by_character > 0.2
        assert (manifest.unknown["validation"] > 0) == (kind == "unigram")
        assert manifest.settings["tokenizer"]["train"] == kind
    # Snow, the Japanese word and the face; held-out words have letters of their own, too.
    assert unknown == {"bpe": 0, "unigram": 3}


def test_words_of_one_kind_have_the_same_tokens_wherever_they_stand(config: DataConfig) -> None:
    for training in SETTINGS.values():
        trained = tokenizer_training.train_on_corpus(replace(config, tokenizer=training))
        tokenizer = tokenizers.Tokenizer.from_str(trained.json)
        first, second = (
            np.array(tokenizer.encode(text, add_special_tokens=False).ids)
            for text in ("teatime", "and teatime")
        )
        assert np.array_equal(second[-len(first) :], first)


def test_too_little_text_for_unigram_says_how_many_entries_there_are() -> None:
    training = TokenizerConfig(train="unigram", size=5000, alphabet=30)
    with pytest.raises(InputError, match=r"words for \d+ entries, expected data.tokenizer.size"):
        tokenizer_training.train(training, lambda: ["tea and biscuits"] * 9, "texts")
    with pytest.raises(InputError, match=r"words for 5 entries, expected data.tokenizer.size"):
        tokenizer_training.train(training, lambda: ["", " "], "texts")


def test_missing_sentencepiece_is_one_line_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = importlib.import_module

    def absent(name: str) -> ModuleType:
        if name == "sentencepiece":
            raise ImportError("no such library")
        return import_module(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"'unigram': needs sentencepiece .*kdjax\[sentencepiece"):
        tokenizer_training.train(SETTINGS["unigram"], lambda: ["tea"], "texts")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "char"}, r"train is 'char', expected wordpiece, bpe or unigram"),
        (
            {"train": "bpe", "size": 260},
            r"size is 260, expected at least 261: 4 special tokens, 256",
        ),
        ({"train": "bpe", "alphabet": 9}, r"alphabet is 9, expected none under bpe"),
        (
            {"train": "unigram", "size": 69},
            r"size is 69, expected at least 70: 5 special tokens, 64",
        ),
    ],
)
def test_impossible_settings_of_a_kind_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TokenizerConfig(**settings)


def test_changed_companion_does_not_mix_frames_of_one_corpus(
    config: DataConfig, tmp_path: Path
) -> None:
    path = make_tokenizer(tmp_path / "tokenizer.json", special=(*SPECIAL, "[END]"))
    text = make_corpus(tmp_path / "words.jsonl", documents=40)
    config = replace(config, files=str(text), tokenizer=str(path))
    companion = tmp_path / "special_tokens_map.json"
    manifest = prepare(config, path, tmp_path / "out")
    assert manifest.special.end == SPECIAL.index("[SEP]")
    companion.write_text('{"sep_token": "[END]"}')
    with pytest.raises(InputError, match=r"prepared with the special tokens .*'end': 3.*'end': 5"):
        prepare(config, path, tmp_path / "out")
    # A corpus of an earlier version does not say, and goes on.
    plan = tmp_path / "out" / "preparation.json"
    begun = json.loads(plan.read_text(encoding="utf-8"))
    del begun["special"]
    plan.write_text(json.dumps(begun), encoding="utf-8")
    companion.unlink()
    assert prepare(config, path, tmp_path / "out") == manifest


def test_manifest_of_an_earlier_version_is_read_with_its_digest(
    config: DataConfig, tmp_path: Path
) -> None:
    manifest = prepare(replace(config, tokenizer=SETTINGS["bpe"]), None, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["special"] == {"pad": 1, "unknown": None, "start": 0, "end": 2, "mask": 3}

    # As it was written then: BERT's names, and its five tokens always.
    del values["word_boundaries"]
    del values["teacher"]
    values["special"] = {"[PAD]": 1, "[UNK]": 9, "[CLS]": 0, "[SEP]": 2, "[MASK]": 3}
    unsigned = {name: value for name, value in values.items() if name not in EARLIER_UNSIGNED}
    values["digest"] = digest(unsigned)
    path.write_text(json.dumps(values), encoding="utf-8")
    earlier = Manifest.read(tmp_path / "out")
    assert earlier.special == SpecialTokens(pad=1, unknown=9, start=0, end=2, mask=3)
    assert earlier.digest == values["digest"]
    assert earlier.signed() == earlier
    assert earlier.word_boundaries is None
    assert replace(earlier, special=manifest.special).signed().digest == manifest.digest
