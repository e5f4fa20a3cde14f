"""BabyLM's files, whose texts are partly put together of several fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdjax.config import EvaluationConfig
from kdjax.config.suites import BABYLM
from kdjax.data.tasks.load import load_tasks, raw_tasks
from kdjax.data.tasks.suite import suite_mean
from kdjax.errors import InputError
from tests.support import glue
from tests.support.corpora import SPECIAL, WORDS, make_tokenizer


def settings(directory: Path, *tasks: str) -> EvaluationConfig:
    return EvaluationConfig(suite="babylm", babylm=str(directory), suite_tasks=tasks)


@pytest.fixture(scope="module")
def babylm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glue.write_babylm(tmp_path_factory.mktemp("babylm"))


def test_all_tasks_are_read_with_training_rows_for_the_selection(
    babylm: Path, tmp_path: Path
) -> None:
    # The templates' words, too.
    words = (*WORDS, "question", ":", "answer", "does", '"', "refer", "to", "in", "this", "?")
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json", SPECIAL, words)
    tasks = load_tasks(settings(babylm), tokenizer, 64, with_unlabelled=True)
    assert [task.name for task in tasks] == [task.name for task in BABYLM]
    for task in tasks:
        assert list(task.reported) == [task.name]
        assert len(task.reported[task.name]) == glue.ROWS["dev"]
        assert len(task.train) + len(task.selection) == glue.ROWS["train"]
        assert task.unlabelled == {}
        assert task.train.second is not None
    outputs = {task.name: task.outputs for task in tasks}
    assert outputs.pop("mnli") == 3
    assert set(outputs.values()) == {2}


def test_texts_of_several_fields_are_put_together(tmp_path: Path) -> None:
    multirc = {"paragraph": "P.", "question": "Q?", "answer": "A{}", "label": 1}
    wsc = {"text": "T.", "span1_text": "Mark", "span2_text": "He", "label": 0}
    for name, row in (("multirc", multirc), ("wsc", wsc)):
        for split in ("train", "valid"):
            (tmp_path / f"{name}.{split}.jsonl").write_text(json.dumps(row) + "\n")
    rows = {}
    for task in raw_tasks(settings(tmp_path, "multirc", "wsc")):
        source, rows[task.name] = next(task.rows())
        assert source.split == "train"
    assert rows["multirc"].texts == ("Question: Q? Answer: A{}", "P.")
    assert rows["multirc"].label == "true"
    assert rows["wsc"].texts == ('Does "He" refer to "Mark" in this passage?', "T.")
    assert rows["wsc"].label == "false"


def test_label_that_is_a_truth_value_is_its_class(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        line = json.dumps({"question": "q", "passage": "p", "label": True})
        (tmp_path / f"boolq.{split}.jsonl").write_text(line)
    (task,) = raw_tasks(settings(tmp_path, "boolq"))
    assert {row.label for _, row in task.rows()} == {"true"}


def test_other_directory_or_missing_file_is_named(babylm: Path, tmp_path: Path) -> None:
    (tmp_path / "full_eval").mkdir()
    (tmp_path / "full_eval" / "glue_filtered").symlink_to(babylm)
    with pytest.raises(InputError, match=r"has no TASK\.train\.jsonl.*; it holds .*glue_filtered$"):
        list(raw_tasks(settings(tmp_path)))
    glue.write_official(tmp_path / "glue")
    with pytest.raises(InputError, match=r"; it looks like GLUE, which evaluation\.glue is for$"):
        list(raw_tasks(settings(tmp_path / "glue")))
    (tmp_path / "rte.train.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"task boolq has no boolq\.train\.jsonl, expected Baby"):
        list(raw_tasks(settings(tmp_path)))


def test_record_without_a_field_is_named(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / f"rte.{split}.jsonl").write_text('{"sentence1": "a", "sentence_2": "b"}')
    with pytest.raises(InputError, match=r"jsonl, line 1: has no 'sentence2' \(did you mean"):
        for task in raw_tasks(settings(tmp_path, "rte")):
            list(task.rows())


def test_record_without_a_part_of_a_text_says_the_fields_of_its_file(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / f"wsc.{split}.jsonl").write_text('{"span2_text": "a", "text": "b"}')
    with pytest.raises(
        InputError, match=r"has no 'span1_text'.*wsc: span2_text, span1_text, text, label$"
    ):
        for task in raw_tasks(settings(tmp_path, "wsc")):
            list(task.rows())


def test_suite_mean_is_over_all_seven_tasks() -> None:
    scores = {task.name: number / 10 for number, task in enumerate(BABYLM)}
    assert suite_mean("babylm", scores) == pytest.approx(0.3)
    del scores["wsc"]
    assert suite_mean("babylm", scores) is None
