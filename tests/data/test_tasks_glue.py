"""GLUE is the same tasks from each of its layouts."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdjax.config import EvaluationConfig
from kdjax.config.suites import GLUE, SuiteTask
from kdjax.data.tasks.load import load_tasks, raw_tasks
from kdjax.data.tasks.suite import splits_of, suite_mean
from kdjax.data.tasks.task import Split, Task
from kdjax.errors import InputError
from kdjax.text.document import split_fraction
from tests.support import glue
from tests.support.corpora import SPECIAL, WORDS, make_tokenizer

IDS = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
LENGTH = 40
"""Longer than any row of the synthetic suite."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glue.write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glue.write_hub(tmp_path_factory.mktemp("hub"))


def read(place: object, tokenizer: Path, *tasks: str, **settings: object) -> dict[str, Task]:
    config = EvaluationConfig(suite="glue", glue=str(place), suite_tasks=tasks, **settings)
    loaded = load_tasks(config, tokenizer, LENGTH, with_unlabelled=True)
    return {task.name: task for task in loaded}


def by_hand(row: glue.Row) -> tuple[int, ...]:
    """Return the ids of a row's texts, framed."""
    ids = [2]
    for text in row.texts:
        words = text.replace('"', '" ').split()
        ids += [IDS.get(word, 1) for word in words]
        ids.append(3)
    return tuple(ids)


def ids_of(split: Split) -> list[tuple[int, ...]]:
    return [tuple(row.tolist()) for row in np.split(split.tokens, split.offsets[1:-1])]


def same(a: Split, b: Split) -> bool:
    """Return whether two splits are equal in every array."""
    for name in ("tokens", "offsets", "second", "labels"):
        x = getattr(a, name)
        y = getattr(b, name)
        if (x is None) != (y is None) or (x is not None and not np.array_equal(x, y)):
            return False
    return True


def same_tasks(a: dict[str, Task], b: dict[str, Task]) -> bool:
    """Return whether tasks have equal rows in every split."""
    assert a.keys() == b.keys()
    for name, task in a.items():
        other = b[name]
        pairs = [(task.train, other.train), (task.selection, other.selection)]
        pairs += [(split, other.reported[key]) for key, split in task.reported.items()]
        pairs += [(split, other.unlabelled[key]) for key, split in task.unlabelled.items()]
        if not all(same(x, y) for x, y in pairs):
            return False
    return True


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_task_has_the_rows_that_its_files_say(
    official: Path, tokenizer: Path, task: SuiteTask
) -> None:
    loaded = read(official, tokenizer, task.name)[task.name]
    assert loaded.classes == task.classes
    assert loaded.metrics == task.metrics
    assert list(loaded.reported) == [result for result, _ in task.results]
    assert list(loaded.unlabelled) == list(loaded.reported)
    for split, result, ending in splits_of(task)[1:]:
        expected = glue.rows_of(task, split, ending)
        part = loaded.reported[result] if split == "dev" else loaded.unlabelled[result]
        # In the order of the file.
        assert ids_of(part) == [by_hand(row) for row in expected]
        if split == "test":
            assert part.labels is None
        else:
            assert part.labels == pytest.approx([row.label for row in expected])


def test_selection_rows_are_training_rows_by_the_hash_of_their_texts(
    official: Path, tokenizer: Path
) -> None:
    task = next(task for task in GLUE if task.name == "rte")
    loaded = read(official, tokenizer, "rte", selection=0.3)["rte"]
    selection: list[Any] = []
    rest: list[Any] = []
    for row in glue.rows_of(task, "train"):
        fraction = split_fraction("\n".join(row.texts))
        (selection if fraction < 0.3 else rest).append((fraction, by_hand(row), row.label))
    assert len(selection) > 10
    for split, expected in ((loaded.selection, selection), (loaded.train, rest)):
        expected.sort()
        assert ids_of(split) == [ids for _, ids, _ in expected]
        assert split.labels.tolist() == [label for _, _, label in expected]


def test_report_on_dev_chooses_on_the_reported_rows_and_trains_on_all(
    official: Path, tokenizer: Path
) -> None:
    loaded = read(official, tokenizer, "mnli", report_on="dev")["mnli"]
    assert len(loaded.train) == glue.ROWS["train"]
    assert same(loaded.selection, loaded.reported["mnli"])
    assert not same(loaded.selection, loaded.reported["mnli-mm"])


def test_equal_rows_are_on_one_side_of_the_selection(tmp_path: Path, tokenizer: Path) -> None:
    glue.write_official(tmp_path, [GLUE[1]])
    path = tmp_path / "SST-2" / "train.tsv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows, *rows, *rows[::2]]) + "\n")
    loaded = read(tmp_path, tokenizer, "sst2", selection=0.3)["sst2"]
    assert len(loaded.selection) + len(loaded.train) == 2.5 * glue.ROWS["train"]
    assert not set(ids_of(loaded.selection)) & set(ids_of(loaded.train))


def test_every_layout_gives_the_same_tasks(official: Path, hub: Path, tokenizer: Path) -> None:
    tasks = read(official, tokenizer)
    assert list(tasks) == [task.name for task in GLUE]
    assert same_tasks(tasks, read(hub, tokenizer))


def test_json_lines_and_shards_give_the_same_tasks(
    hub: Path, tmp_path: Path, tokenizer: Path
) -> None:
    glue.write_hub(tmp_path, ".jsonl")
    train = tmp_path / "cola" / "train.jsonl"
    lines = train.read_text().splitlines(keepends=True)
    (tmp_path / "cola" / "train-00000-of-00002.jsonl").write_text("".join(lines[:30]))
    (tmp_path / "cola" / "train-00001-of-00002.jsonl").write_text("".join(lines[30:]))
    train.unlink()
    assert same_tasks(read(hub, tokenizer), read(tmp_path, tokenizer))


def test_prepared_tfds_gives_the_same_tasks_without_tensorflow(
    official: Path, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("importlib_resources")
    names = ("sst2", "stsb", "mnli")
    root = glue.write_tfds(tmp_path, [task for task in GLUE if task.name in names])
    expected = read(official, tokenizer, *names)
    assert same_tasks(read(f"tfds:{root}", tokenizer, *names), expected)
    assert "tensorflow" not in sys.modules
    # By its name, where TFDS keeps data sets.
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(official)
    assert same_tasks(read("tfds:glue", tokenizer, "stsb"), {"stsb": expected["stsb"]})
    with pytest.raises(InputError, match=r"task rte has no rte/VERSION/dataset_info\.json, exp"):
        read(f"tfds:{root}", tokenizer, "rte")


def test_mrpc_is_read_as_microsoft_distributes_it(
    official: Path, tmp_path: Path, tokenizer: Path
) -> None:
    glue.write_microsoft_mrpc(tmp_path)
    assert same_tasks(read(tmp_path, tokenizer, "mrpc"), read(official, tokenizer, "mrpc"))
    (tmp_path / "MRPC" / "dev_ids.tsv").unlink()
    with pytest.raises(InputError, match=r"MRPC: task mrpc has no train\.tsv and no dev_ids\.tsv"):
        read(tmp_path, tokenizer, "mrpc")


def test_rows_without_columns_or_gold_label_are_left_out_and_counted(
    official: Path, tmp_path: Path, tokenizer: Path
) -> None:
    qqp = read(official, tokenizer, "qqp")["qqp"]
    assert qqp.left_out == {"lack columns": glue.SHORT_ROWS}
    assert len(qqp.train) + len(qqp.selection) == glue.ROWS["train"]
    glue.write_official(tmp_path, [task for task in GLUE if task.name == "mnli"])
    path = tmp_path / "MNLI" / "train.tsv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].rpartition("\t")[0] + "\t-"
    path.write_text("\n".join(lines) + "\n")
    mnli = read(tmp_path, tokenizer, "mnli")["mnli"]
    assert mnli.left_out == {"have no gold label": 1}
    assert len(mnli.train) + len(mnli.selection) == glue.ROWS["train"] - 1


def test_test_rows_are_read_only_on_demand(official: Path, tmp_path: Path, tokenizer: Path) -> None:
    shutil.copytree(official / "QQP", tmp_path / "QQP")
    (tmp_path / "QQP" / "test.tsv").write_text("damaged")
    config = EvaluationConfig(suite="glue", glue=str(tmp_path), suite_tasks=("qqp",))
    (task,) = load_tasks(config, tokenizer, LENGTH)
    assert task.unlabelled == {}
    with pytest.raises(InputError, match=r"test\.tsv, line 1: has no column 'question1'"):
        load_tasks(config, tokenizer, LENGTH, with_unlabelled=True)


def test_raw_rows_have_texts_split_and_place(official: Path) -> None:
    config = EvaluationConfig(suite="glue", glue=str(official), suite_tasks=("sst2", "mnli"))
    sst2, mnli = raw_tasks(config)
    source, row = next(sst2.rows())
    assert (source.split, source.result) == ("train", "sst2")
    assert row.texts == glue.rows_of(GLUE[1], "train")[0].texts
    assert row.where == f"{official}/SST-2/train.tsv, line 2"
    counts = {(source.split, source.result): 0 for source in mnli.sources}
    for source, _ in mnli.rows():
        counts[source.split, source.result] += 1
    assert counts == {
        ("train", "mnli"): glue.ROWS["train"],
        ("dev", "mnli"): glue.ROWS["dev"],
        ("dev", "mnli-mm"): glue.ROWS["dev"],
        ("test", "mnli"): glue.ROWS["test"],
        ("test", "mnli-mm"): glue.ROWS["test"],
    }


def test_suite_mean_counts_mnli_once_and_leaves_wnli_out() -> None:
    scores = {"cola": 0.5, "sst2": 0.9, "mrpc": 0.8, "qqp": 0.7, "stsb": 0.6}
    scores |= {"mnli": 0.7, "mnli-mm": 0.5, "qnli": 0.8, "rte": 0.5, "wnli": 0.1, "mine": 0.0}
    expected = (0.5 + 0.9 + 0.8 + 0.7 + 0.6 + (0.7 + 0.5) / 2 + 0.8 + 0.5) / 8
    assert suite_mean("glue", scores) == pytest.approx(expected)
    without_wnli = {name: score for name, score in scores.items() if name != "wnli"}
    assert suite_mean("glue", without_wnli) == pytest.approx(expected)
    for missing in ("cola", "mnli-mm"):
        fewer = {name: score for name, score in scores.items() if name != missing}
        assert suite_mean("glue", fewer) is None
