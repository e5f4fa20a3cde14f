"""What a rehearsal reads in place of a recipe's inputs is as those have to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdjax import models
from kdjax.config import (
    ArmConfig,
    Config,
    EvaluationConfig,
    HeadConfig,
    MinimalPairsConfig,
    TaskConfig,
    TokenizerConfig,
)
from kdjax.rehearsal import made_up_text
from kdjax.rehearsal.inputs import DOCUMENTS, write_inputs
from kdjax.rehearsal.scale import scale_recipe
from kdjax.study.artifacts.input_checks import check_inputs


def test_text_is_the_same_each_time_and_each_word_another() -> None:
    assert (
        made_up_text.documents(20, seed=3)
        == made_up_text.documents(20, seed=3)
        != made_up_text.documents(20, seed=4)
    )
    words = made_up_text.words()
    assert len(set(words)) == len(words) == made_up_text.VOCABULARY
    # Frequent words are short, and some have accents.
    assert max(map(len, words[:100])) <= 6
    assert any("é" in word for word in words)


@pytest.fixture
def config() -> Config:
    """A recipe with every kind of input."""
    tasks = {
        "topic": TaskConfig(
            file="rows.json", text="extract", label="topic", drop_labels=("none",), identity="key"
        ),
        "pairs": TaskConfig(file="rows.csv", text_b="other", where={"source": "x"}),
        "graded": TaskConfig(train="a.csv", dev="b.csv", test="c.csv", regression=True),
    }
    evaluation = EvaluationConfig(
        tasks=tasks,
        suite="glue",
        glue="glue",
        suite_tasks=("rte", "stsb"),
        texts={"elsewhere": "other.txt"},
        minimal_pairs=MinimalPairsConfig(directory="pairs"),
        protocols=("probe",),
    )
    config = Config(arms={"logit": ArmConfig()}, evaluation=evaluation)
    teacher = replace(config.teacher, source="bert", head=HeadConfig(budget=1e15))
    return replace(config, teacher=teacher)


def test_every_input_of_a_recipe_is_there_and_as_it_must_be(config: Config, tmp_path: Path) -> None:
    inputs = write_inputs(config, tmp_path)
    smaller = scale_recipe(config, inputs)
    check_inputs(smaller)
    assert smaller.evaluation.task_results == config.evaluation.task_results
    # The head is fitted, as in the recipe; the tokenizer lies beside the weights.
    teacher = models.from_pretrained(tmp_path / "teacher")
    assert "mlm" not in teacher.params
    assert (tmp_path / "teacher" / "tokenizer.json").is_file()
    assert smaller.data.tokenizer == ""
    assert inputs.text.read_text(encoding="utf-8").count("\n") == DOCUMENTS


def test_recipe_that_trains_its_tokenizer_and_reads_no_teacher_gets_neither(
    tmp_path: Path,
) -> None:
    data = replace(Config().data, tokenizer=TokenizerConfig("wordpiece", 512))
    training = replace(Config().teacher.train, budget=1e12)
    config = Config(data=data, arms={"scratch": ArmConfig()})
    config = replace(config, teacher=replace(config.teacher, train=training))
    inputs = write_inputs(config, tmp_path)
    assert (inputs.teacher, inputs.tokenizer) == (None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.jsonl"]
