"""A study with its own vocabulary: priced before there is text, whole after a restart, recounted by
the audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kdjax import recipes
from kdjax.config import Config, DataConfig, ModelSpec, TokenizerConfig
from kdjax.data.corpus import Corpus
from kdjax.data.prepare.ngram_losses import ngram_losses
from kdjax.errors import InputError
from tests.study.conftest import Ended, kdjax
from tests.support import small_study, tiny

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("undrawn", "one_device")]

SIZE = tiny.VOCABULARY
"""As in other tests, so that prices and programs are shared with them."""
TOKENIZER_NAME = "tokenizer.json"
TOKENIZER = {"train": "wordpiece", "size": SIZE, "alphabet": 12}


def recipe_in(directory: Path, **data: object) -> Path:
    """Write a recipe of two arms' worth of settings whose vocabulary is its own: one arm without a
    teacher, one seed."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = small_study.settings(directory)
    del settings["teacher"]
    settings["student"] = {k: v for k, v in settings["student"].items() if k != "vocab_size"}
    settings["data"] = {**settings["data"], "tokenizer": TOKENIZER, **data}
    settings |= {"arms": {"scratch": {}}, "seeds": [0], "budget": {"flops": 2.0e7}}
    settings["evaluation"] = {"mlm_sequences": 16}
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe_in(tmp_path_factory.mktemp("recipe"))


def refused(ended: Ended) -> str:
    """Return what a command said of bad input."""
    assert ended.status == 2
    return ended.complaint


def test_models_take_the_vocabulary_size_of_a_trained_tokenizer(recipe: Path) -> None:
    for words, size in (((), SIZE), (("--data.tokenizer.size", "70"), 70)):
        config = recipes.load(recipe, words)
        assert config.student.vocab_size == config.teacher.architecture.vocab_size == size
    again = recipes.from_dict(json.loads(json.dumps(yaml.safe_load(recipes.dump(config)))))
    assert again == config
    from_file = recipes.load(recipe, ["--data.tokenizer", "some.json"])
    assert from_file.data.tokenizer == "some.json"
    assert from_file.student.vocab_size == Config().student.vocab_size


def test_changed_tokenizer_size_changes_both_models(recipe: Path) -> None:
    config = recipes.changed(recipes.load(recipe), {"data.tokenizer.size": 80})
    assert (config.student.vocab_size, config.data.tokenizer.size) == (80, 80)
    path = recipes.load(recipe, ["--data.tokenizer", "some.json"])
    trained = recipes.changed(path, {"data.tokenizer.size": 500}).data.tokenizer
    assert trained == TokenizerConfig(size=500)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--data.tokenizer.train", "bpe"),
            "data.tokenizer.alphabet is 12, expected none under bpe",
        ),
        (
            ("--data.tokenizer.size", "29"),
            "data.tokenizer.size is 29, expected at least 30: 5 special tokens",
        ),
        (
            ("--data.tokenizer.alphabet", "-1"),
            "data.tokenizer.alphabet is -1, expected at least 0, at most 1,048,576",
        ),
        (
            ("--data.tokenizer.size", "1000000000"),
            "size is 1000000000, expected at least 0, at most 1,048,576",
        ),
        (("--data.tokenizer.size", "1" + "0" * 20), "expected at least 0, at most 1,048,576"),
        (
            ("--data.tokenizer.sise", "99"),
            "unknown setting '--data.tokenizer.sise' (did you mean '--data.tokenizer.size'?)",
        ),
        (
            ("--student.vocab_size", "100"),
            "student.vocab_size is 100, expected data.tokenizer.size, 53",
        ),
        (
            ("--teacher.architecture.vocab_size", "9"),
            "teacher.architecture.vocab_size is 9, expected data.tokenizer.size",
        ),
    ],
)
def test_impossible_tokenizer_settings_are_refused(
    recipe: Path, words: tuple[str, ...], message: str
) -> None:
    assert message in refused(kdjax("price", recipe, *words))


def test_size_too_small_for_the_default_alphabet_is_refused() -> None:
    assert TokenizerConfig(size=512).characters == 64
    assert TokenizerConfig(size=8192).characters == 1024
    with pytest.raises(InputError, match="size is 133, expected at least 134"):
        TokenizerConfig(size=133)
    with pytest.raises(InputError, match="vocab_size is 100"):
        Config(
            data=DataConfig(tokenizer=TokenizerConfig(size=512)), student=ModelSpec(vocab_size=100)
        )


def test_price_follows_the_tokenizer_size_without_text(recipe: Path) -> None:
    priced = kdjax("price", recipe, "--json", "--data.files", "nowhere.txt")
    stated = ("--data.tokenizer", "none.json", "--student.vocab_size", str(SIZE))
    expected = kdjax("price", recipe, "--json", "--data.files", "nowhere.txt", *stated)
    assert priced.status == expected.status == 0
    assert json.loads(priced.out) == json.loads(expected.out)


def test_tokenizer_command_makes_a_tokenizer_for_other_recipes(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    ended = kdjax("tokenizer", recipe, "--out", out)
    assert ended.status == 0
    assert f"{SIZE} entries" in ended.err + ended.out
    assert sorted(path.name for path in out.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert "is not empty, expected a new or empty directory" in refused(
        kdjax("tokenizer", recipe, "--out", out)
    )
    path = ("--data.tokenizer", out / "tokenizer.json")
    assert "data.tokenizer is '" in refused(
        kdjax("tokenizer", recipe, "--out", tmp_path / "x", *path)
    )
    large = ("--data.tokenizer.size", "5000")
    assert "entries, expected data.tokenizer.size, 5,000" in refused(
        kdjax("tokenizer", recipe, "--out", tmp_path / "x", *large)
    )
    assert not (tmp_path / "x").exists()

    # Prepared with the file, the text is the one that trains it.
    for name, words in (("trained", ()), ("given", (*path, "--student.vocab_size", str(SIZE)))):
        assert kdjax("prepare", recipe, "--out", tmp_path / name, *words).status == 0
    trained = Corpus.open(tmp_path / "trained").manifest
    manifest = Corpus.open(tmp_path / "given").manifest
    assert [shard.sha256 for shard in trained.shards] == [shard.sha256 for shard in manifest.shards]
    wrong = ("--data.prepared", tmp_path / "given")
    assert "was prepared with a tokenizer that was given" in refused(
        kdjax("compare", recipe, "--out", tmp_path / "study", *wrong)
    )
    # Nor one that was trained in another way.
    other = ("--data.prepared", tmp_path / "trained", "--data.tokenizer.size", "61")
    assert "was prepared with a tokenizer trained by" in refused(
        kdjax("compare", recipe, "--out", tmp_path / "study", *other)
    )


def test_study_with_trained_tokenizer_ends_resumes_and_passes_audit(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    ended = kdjax("compare", recipe, "--out", out)
    assert ended.status == 0, ended.err
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    corpus = Corpus.open(out / "data")
    losses = ngram_losses(corpus)
    losses_row = results["corpus"]["reference_losses"]
    assert results["corpus"]["vocabulary"] == results["student"]["vocab_size"] == SIZE
    assert results["corpus"]["tokenizer"] == corpus.manifest.tokenizer_sha256
    assert losses_row["both_neighbors"] == losses.both_neighbors
    for label in ("unigram", "left neighbour", "both neighbours"):
        assert label in ended.out

    # Started again, it finds its tokenizer and its text; the audit counts all of it again.
    before = (out / "results.json").read_bytes()
    assert kdjax("compare", recipe, "--out", out).status == 0
    assert (out / "results.json").read_bytes() == before
    assert kdjax("audit", out).status == 0
    losses_row["unigram"] += 0.1
    (out / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert "reference_losses.unigram" in kdjax("audit", out).out

    # A part on another machine has the same text, and merges.
    part = tmp_path / "part"
    assert kdjax("train", recipe, "--out", part, "--part", "1/1").status == 0
    assert kdjax("merge", part, out, "--out", tmp_path / "whole").status == 0
    assert Corpus.open(tmp_path / "whole" / "data").digest == corpus.digest
    assert (tmp_path / "whole" / "data" / TOKENIZER_NAME).exists()


def test_study_under_span_masks_keeps_its_unit_and_needs_word_boundaries(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    spans = ("--data.masking.unit", "span")
    ended = kdjax("compare", recipe, "--out", out, *spans)
    assert ended.status == 0, ended.err
    assert kdjax("audit", out).status == 0
    assert "data.masking" in refused(kdjax("compare", recipe, "--out", out))

    # A corpus of an earlier version does not say where words begin: said before a step is spent.
    manifest = out / "data" / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    del values["word_boundaries"]
    manifest.write_text(json.dumps(values), encoding="utf-8")
    prepared = ("--data.prepared", out / "data")
    line = refused(kdjax("compare", recipe, "--out", tmp_path / "other", *spans, *prepared))
    assert "was prepared by an earlier version, which did not look where words begin" in line
    assert not list((tmp_path / "other").glob("runs/*"))


def test_teacher_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    path = recipe_in(tmp_path / "recipe", tokenizer={**TOKENIZER, "size": 60})
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    teacher = small_study.make_teacher(tmp_path / "encoder", head=True)
    architecture = {k: v for k, v in small_study.TEACHER.items() if k != "vocab_size"}
    settings["teacher"] = {"source": str(teacher), "architecture": architecture}
    settings["arms"] = {"logit": {}}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ended = kdjax("compare", path, "--out", tmp_path / "out")
    line = refused(ended)
    assert "prepare" not in ended.err  # before any text was read
    assert "the model's vocab_size is 53, expected teacher.architecture's 60" in line

    # Of the same size, its entries are compared once the text has made ours.
    sized = ("--data.tokenizer.size", "53")
    line = refused(kdjax("compare", path, "--out", tmp_path / "out", *sized))
    assert "entry" in line
    assert "expected" in line
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
