"""A trained tokenizer: of the size asked for, blind to held-out documents, and always the same
bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from kdjax.config import DataConfig, TokenizerConfig
from kdjax.data.manifest import Manifest
from kdjax.data.prepare.local import prepare
from kdjax.data.prepare.preparation import TOKENIZER
from kdjax.errors import InputError
from kdjax.models import zoo
from kdjax.text.document import split_fraction
from kdjax.tokenizers import tokenizer_training
from kdjax.tokenizers.text_tokenizer import TextTokenizer
from kdjax.tokenizers.wordpiece import SPECIAL
from tests.data.directories import contents
from tests.support.corpora import make_corpus

ROOT = Path(__file__).parents[2]
SIZE = 160
TRAINING = TokenizerConfig(size=SIZE, alphabet=30)
LETTERS = "etaoinshrdlucmfw"
HELD_OUT_WORD = "qzxqzx"


def word(rng: np.random.Generator) -> str:
    """Draw a random word: letters have different frequencies, and many pairs of letters the same
    one."""
    return "".join(LETTERS[int(n)] for n in rng.zipf(1.6, rng.integers(1, 9)) % len(LETTERS))


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Settings for 600 documents with ids; one word stands in every held-out document and in no
    other."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(600):
        text = " ".join(word(rng) for _ in range(rng.integers(5, 40))) + ", 1984. Café!"
        if split_fraction(f"document {n}") < 0.2:
            text = f"{text} {HELD_OUT_WORD} {HELD_OUT_WORD}"
        rows.append({"id": f"document {n}", "text": text})
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(
        files=str(path),
        tokenizer=TRAINING,
        seq_len=24,
        max_predictions=4,
        validation=0.2,
        shard_documents=200,
        workers=1,
    )


def vocabulary(trained: tokenizer_training.TrainedTokenizer) -> dict[str, int]:
    return dict(tokenizers.Tokenizer.from_str(trained.json).get_vocab(with_added_tokens=True))


@pytest.mark.parametrize("size", [SIZE, SIZE + 1, 300])
def test_vocabulary_has_exactly_the_size_asked_for(config: DataConfig, size: int) -> None:
    training = replace(TRAINING, size=size)
    entries = vocabulary(tokenizer_training.train_on_corpus(replace(config, tokenizer=training)))
    assert sorted(entries.values()) == list(range(size))
    assert [entries[name] for name in SPECIAL] == [0, 1, 2, 3, 4]


def test_words_of_held_out_documents_have_no_entries(config: DataConfig) -> None:
    entries = vocabulary(tokenizer_training.train_on_corpus(config))
    assert not set("qxz") & set("".join(entries))

    # They would have them, were those documents seen.
    seen = vocabulary(tokenizer_training.train_on_corpus(replace(config, validation=1e-9)))
    assert HELD_OUT_WORD in seen


def test_text_is_lowercase_without_accents_and_rare_characters_are_unknown(
    config: DataConfig,
) -> None:
    training = replace(TRAINING, alphabet=10)
    trained = tokenizer_training.train_on_corpus(replace(config, tokenizer=training))
    tokenizer = tokenizers.Tokenizer.from_str(trained.json)
    assert (
        tokenizer.encode("ÉTÉ", add_special_tokens=False).tokens
        == tokenizer.encode("ete", add_special_tokens=False).tokens
    )
    singles = [entry for entry in vocabulary(trained) if len(entry) == 1]
    assert len(singles) == 10
    assert 0 < trained.uncovered < 0.3
    assert tokenizer.encode("et1", add_special_tokens=False).tokens == ["[UNK]"]


PROGRAM = """
import json, sys
from pathlib import Path
from kdjax.config import DataConfig, TokenizerConfig
from kdjax.tokenizers import tokenizer_training
config = DataConfig(files=sys.argv[1], validation=0.2, tokenizer=TokenizerConfig(size=160, alphabet=30))
sys.stdout.write(tokenizer_training.train_on_corpus(config).json)
"""  # noqa: E501


def test_processes_and_threads_do_not_change_the_bytes(config: DataConfig) -> None:
    expected = tokenizer_training.train_on_corpus(config).json
    for threads, parallel in (("1", "false"), ("3", "true"), ("2", "true")):
        # Each process has hash tables in an order of its own.
        environment = {
            **os.environ,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": parallel,
        }
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(config.files)],
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout == expected


def test_too_little_text_says_how_many_entries_there_are(
    config: DataConfig, tmp_path: Path
) -> None:
    expected = replace(config, tokenizer=replace(TRAINING, size=100_000))
    with pytest.raises(
        InputError, match=r"words for [\d,]+ entries, expected data.tokenizer.size, 100,000"
    ):
        prepare(expected, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepared_corpus_has_its_tokenizer_and_its_digest(
    config: DataConfig, tmp_path: Path
) -> None:
    trained = prepare(config, None, tmp_path / "out")
    path = tmp_path / "out" / TOKENIZER
    assert trained.tokenizer_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert trained.vocab_size == SIZE
    assert trained.settings["tokenizer"] == {"train": "wordpiece", "size": SIZE, "alphabet": 30}
    assert path.read_text(encoding="utf-8") == tokenizer_training.train_on_corpus(config).json

    # Named by its path it makes the same tokens.
    supplied = prepare(config, path, tmp_path / "given")
    assert [shard.sha256 for shard in supplied.shards] == [shard.sha256 for shard in trained.shards]


@pytest.mark.system
def test_preparation_killed_around_its_training_goes_on(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    out = tmp_path / "out"
    manifest = prepare(config, None, whole)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    # Once before the tokenizer is written, once before its digest is in the plan.
    for name in (
        "kdjax.data.prepare.preparation.write_text",
        "kdjax.data.prepare.preparation.TextTokenizer.read",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(name, kill)
            with pytest.raises(Killed):
                prepare(config, None, out)
        assert not (out / "manifest.json").exists()
    assert prepare(config, None, out) == manifest
    assert contents(out) == contents(whole)


def test_finished_corpus_is_not_trained_again_unless_its_tokenizer_is_gone(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    manifest = prepare(config, None, out)
    trained: list[int] = []
    train = tokenizer_training.train_on_corpus

    def counted(config: DataConfig) -> tokenizer_training.TrainedTokenizer:
        trained.append(1)
        return train(config)

    monkeypatch.setattr(tokenizer_training, "train_on_corpus", counted)
    assert prepare(config, None, out) == manifest
    assert not trained
    (out / TOKENIZER).unlink()
    assert prepare(config, None, out) == manifest
    assert len(trained) == 1


def test_corpus_of_another_tokenizer_is_refused(config: DataConfig, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    prepare(config, None, trained)
    before = contents(trained)
    with pytest.raises(InputError, match=r"prepared with data\.tokenizer .*160.*, expected .*170"):
        prepare(replace(config, tokenizer=replace(TRAINING, size=170)), None, trained)
    other = tmp_path / "other.json"
    other.write_text(
        tokenizer_training.train_on_corpus(replace(config, validation=0.3)).json, encoding="utf-8"
    )
    with pytest.raises(InputError, match="prepared with tokenizer_sha256"):
        prepare(replace(config, tokenizer=str(other)), other, trained)
    assert contents(trained) == before

    supplied = tmp_path / "given"
    prepare(replace(config, tokenizer=str(other)), other, supplied)
    with pytest.raises(
        InputError, match=r"prepared with data\.tokenizer a file that was given, expected"
    ):
        prepare(config, None, supplied)


def test_beam_prepares_the_same_bytes(config: DataConfig, tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    from kdjax.data.prepare import beam as pipeline

    alone = prepare(config, None, tmp_path / "alone")
    assert pipeline.prepare(config, None, tmp_path / "beam") == alone
    assert contents(tmp_path / "beam") == contents(tmp_path / "alone")


def test_transformers_gives_the_same_ids(config: DataConfig, tmp_path: Path) -> None:
    trained = tokenizer_training.train_on_corpus(config)
    (tmp_path / "made").mkdir()
    tokenizer_training.write_directory(trained, tmp_path / "made", zoo.get("mini"))
    settings = json.loads((tmp_path / "made" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (settings["do_lower_case"], settings["model_max_length"]) == (True, 512)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "made"))
    ours = TextTokenizer.read(tmp_path / "made" / TOKENIZER)
    text = "The tea, 1984: in Café!"
    (ids,) = ours.ids([text])
    assert theirs(text)["input_ids"] == [ours.special.start, *ids, ours.special.end]
    assert (theirs.mask_token_id, theirs.pad_token_id, theirs.unk_token_id) == (4, 0, 1)
    assert len(theirs) == SIZE


def test_manifest_of_a_given_tokenizer_has_no_training(
    tmp_path: Path, tokenizer: Path, config: DataConfig
) -> None:
    files = str(make_corpus(tmp_path / "known-words.jsonl"))
    data = replace(config, files=files, tokenizer=str(tokenizer))
    prepare(data, tokenizer, tmp_path / "out")
    assert "tokenizer" not in Manifest.read(tmp_path / "out").settings
