"""Inputs that a recipe names are looked at before any time is spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdjax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    MinimalPairsConfig,
    TaskConfig,
    TokenizerConfig,
)
from kdjax.errors import InputError
from kdjax.study.artifacts.input_checks import check_inputs, missing_input
from tests.support.corpora import make_corpus
from tests.support.pairs import blimp_row
from tests.support.small_study import make_task


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a recipe that trains its tokenizer, with every kind of input."""
    pairs = tmp_path / "pairs" / "blimp_fast"
    pairs.mkdir(parents=True)
    row = blimp_row("the cat sits.", "the cat sit.", "agreement")
    (pairs / "agreement.jsonl").write_text(json.dumps(row))
    evaluation = EvaluationConfig(
        texts={"news": str(make_corpus(tmp_path / "news.jsonl", documents=3))},
        minimal_pairs=MinimalPairsConfig(directory=str(pairs.parent), sets=("blimp",)),
        tasks={"halves": TaskConfig(file=str(make_task(tmp_path / "halves.csv", "halves")))},
    )
    data = DataConfig(
        files=str(make_corpus(tmp_path / "text.jsonl", documents=3)),
        tokenizer=TokenizerConfig(train="wordpiece", size=140),
    )
    return Config(data=data, evaluation=evaluation)


def evaluated(config: Config, **changes: object) -> Config:
    return replace(config, evaluation=replace(config.evaluation, **changes))


def test_recipe_with_all_its_inputs_passes(config: Config) -> None:
    check_inputs(config)
    assert missing_input(config) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: replace(c, data=replace(c.data, files="nowhere/*.txt")),
            r"nowhere/\*\.txt",
        ),
        (
            lambda c: replace(c, data=replace(c.data, tokenizer="nowhere/tokenizer.json")),
            r"nowhere/tokenizer\.json",
        ),
        (
            lambda c: replace(c, data=replace(c.data, prepared="nowhere")),
            r"nowhere: holds no manifest\.json",
        ),
        (
            lambda c: evaluated(c, texts={"news": "nowhere/*.txt"}),
            r"^evaluation\.texts\.news: nowhere",
        ),
        (
            lambda c: evaluated(c, minimal_pairs=MinimalPairsConfig(directory="nowhere")),
            r"evaluation\.minimal_pairs\.directory is 'nowhere': no such directory",
        ),
        (
            lambda c: evaluated(
                c, minimal_pairs=replace(c.evaluation.minimal_pairs, sets=("blimp", "ewok"))
            ),
            r"pairs: has no ewok_filtered and ewok_fast",
        ),
        (
            lambda c: evaluated(c, tasks={"mine": TaskConfig(file="nowhere.csv")}),
            r"nowhere\.csv",
        ),
        (lambda c: evaluated(c, suite="glue", glue="nowhere"), r"nowhere"),
    ],
)
def test_missing_input_is_refused_by_name(
    config: Config, change: Callable[[Config], Config], message: str
) -> None:
    changed = change(config)
    with pytest.raises(InputError, match=message):
        check_inputs(changed)
    assert missing_input(changed)


@pytest.mark.parametrize("name", ["text.jsonl", "news.jsonl", "pairs/blimp_fast/agreement.jsonl"])
def test_input_that_begins_otherwise_is_refused_with_its_file(
    config: Config, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text('{"other": ')
    with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
        check_inputs(config)


def test_prepared_text_needs_its_sources_no_more(config: Config, tmp_path: Path) -> None:
    prepared = {"data": tmp_path / "data", "texts": tmp_path / "texts"}
    for directory in (prepared["data"], prepared["texts"] / "news"):
        directory.mkdir(parents=True)
        (directory / "manifest.json").write_text("{}")
    (tmp_path / "text.jsonl").unlink()
    (tmp_path / "news.jsonl").unlink()
    check_inputs(config, prepared)
    with pytest.raises(InputError, match=r"text\.jsonl"):
        check_inputs(config)


def test_recipe_that_leaves_its_text_to_the_command_line_is_told_from_a_wrong_one(
    config: Config,
) -> None:
    without_text = replace(config, data=replace(config.data, files=""))
    assert missing_input(without_text).startswith("this recipe names no text")
    nowhere = replace(config, data=replace(config.data, files="nowhere/*.txt"))
    assert missing_input(nowhere).startswith("a study of this recipe would be refused: ")


def test_what_lies_elsewhere_is_not_asked_for_before_prices(config: Config) -> None:
    data = replace(config.data, files="https://example.org/text.txt", tokenizer="hf:some/bert@main")
    assert missing_input(replace(config, data=data)) == ""
