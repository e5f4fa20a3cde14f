"""The rows of tasks that are looked for are those that the evaluation has, by what they are for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kdjax.config import EvaluationConfig
from kdjax.data.contamination.rows import RowGroup, row_groups
from kdjax.data.tasks.load import load_tasks
from tests.support import glue
from tests.support.corpora import make_tokenizer

TASKS = ("mrpc", "mnli")


def counts(groups: list[RowGroup]) -> dict[tuple[str, str], int]:
    """Count the rows of each result and use."""
    return {(group.result, group.use): len(list(group.read())) for group in groups}


@pytest.mark.parametrize("report_on", ["unseen", "dev"])
def test_rows_of_a_suite_are_as_many_as_the_evaluation_has(tmp_path: Path, report_on: str) -> None:
    glue.write_official(tmp_path)
    config = EvaluationConfig(
        suite="glue", suite_tasks=TASKS, glue=str(tmp_path), report_on=report_on
    )
    groups = row_groups(config)
    expected = {}
    for task in load_tasks(config, make_tokenizer(tmp_path / "tokenizer.json"), 32):
        expected[task.name, "train"] = len(task.train)
        if report_on == "unseen":
            expected[task.name, "selection"] = len(task.selection)
        for result, split in task.reported.items():
            expected[result, "reported"] = len(split)
    assert counts(groups) == expected
    assert ("mnli-mm", "reported") in expected


def test_selection_rows_of_a_suite_are_no_training_rows(tmp_path: Path) -> None:
    glue.write_official(tmp_path)
    config = EvaluationConfig(suite="glue", suite_tasks=("mrpc",), glue=str(tmp_path))
    train, selection, _ = row_groups(config)
    assert (train.use, selection.use) == ("train", "selection")
    trained = set(train.read())
    selected = set(selection.read())
    assert not trained & selected
    assert 0 < len(selected) < len(trained)


def test_row_of_a_pair_has_both_texts_and_its_place(tmp_path: Path) -> None:
    glue.write_official(tmp_path)
    config = EvaluationConfig(suite="glue", suite_tasks=("mrpc",), glue=str(tmp_path))
    reported = row_groups(config)[-1]
    (place, texts) = next(iter(reported.read()))
    expected = glue.rows_of(glue.GLUE[2], "dev")[0]
    assert texts == expected.texts
    assert str(tmp_path / "MRPC" / "dev.tsv") in place
    # A group is read as often as it is asked for.
    first = itertools.islice(reported.read(), 3)
    assert list(first) == list(reported.read())[:3]
