"""Files of GLUE as on the Hub: all shards of one set, in one format, or one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdjax.config import EvaluationConfig
from kdjax.config.suites import GLUE
from kdjax.data.tasks.load import raw_tasks
from kdjax.errors import InputError
from kdjax.text.shard_sets import missing_shards
from tests.support import glue

RTE = next(task for task in GLUE if task.name == "rte")


@pytest.fixture
def rte(tmp_path: Path) -> Path:
    """Write RTE as JSON lines; return its directory."""
    glue.write_hub(tmp_path, ".jsonl", [RTE])
    return tmp_path / "rte"


def training_texts(directory: Path) -> list[tuple[str, ...]]:
    """Read the texts of the training rows."""
    config = EvaluationConfig(suite="glue", glue=str(directory.parent), suite_tasks=("rte",))
    (task,) = raw_tasks(config)
    (source,) = task.of_split("train")
    return [row.texts for row in source.rows()]


def cut(directory: Path, shards: int, digits: int = 5) -> None:
    """Replace the training file by shards, whose numbers have at least so many digits."""
    whole = directory / "train.jsonl"
    lines = whole.read_text().splitlines(keepends=True)
    each = -(-len(lines) // shards)
    for number in range(shards):
        part = lines[number * each : (number + 1) * each]
        name = f"train-{number:0{digits}}-of-{shards:0{digits}}.jsonl"
        (directory / name).write_text("".join(part))
    whole.unlink()


@pytest.mark.parametrize(("shards", "digits"), [(3, 5), (11, 1)], ids=["padded", "unpadded"])
def test_rows_of_all_shards_are_those_of_the_whole_file_in_order(
    rte: Path, shards: int, digits: int
) -> None:
    # Of unpadded names "train-10-of-11" sorts before "train-2-of-11" as text.
    expected = training_texts(rte)
    assert len(set(expected)) >= shards
    cut(rte, shards, digits)
    assert training_texts(rte) == expected


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ((0,), r"has 2 of the 3 files of train-00001-of-00003\.jsonl's set \(shard 00000 is miss"),
        ((1,), r"has 2 of the 3 files .* \(shard 00001 is missing\)"),
        (
            (1, 2),
            r"has 1 of the 3 files .* \(shard 00001 is missing\), expected all of them, 00000",
        ),
    ],
)
def test_set_without_all_its_shards_is_refused(
    rte: Path, gone: tuple[int, ...], message: str
) -> None:
    cut(rte, 3)
    for number in gone:
        (rte / f"train-{number:05}-of-00003.jsonl").unlink()
    with pytest.raises(InputError, match=message):
        training_texts(rte)


def test_shard_beyond_the_number_of_its_set_is_refused(rte: Path) -> None:
    cut(rte, 2)
    (rte / "train-00002-of-00002.jsonl").write_text("")
    with pytest.raises(InputError, match=r"has 3 of the 2 files .* \(others are beside them\)"):
        training_texts(rte)


@pytest.mark.parametrize(
    "other",
    [
        "train-00000-of-00001.parquet",
        "train-00000-of-00001.jsonl",
        "train.json",
        "train.jsonl.gz",
    ],
)
def test_split_that_is_there_twice_is_refused(rte: Path, other: str) -> None:
    (rte / other).write_text("")
    with pytest.raises(InputError, match=r"rte: has train.* and train.*, expected the train split"):
        training_texts(rte)


def test_dev_split_by_two_names_is_refused(rte: Path) -> None:
    (rte / "dev.jsonl").write_text((rte / "validation.jsonl").read_text())
    with pytest.raises(
        InputError, match=r"has dev\.jsonl and validation\.jsonl, expected the valid"
    ):
        training_texts(rte)


def test_old_shard_beside_a_newer_set_is_refused(rte: Path) -> None:
    cut(rte, 2)
    (rte / "train-00000-of-00001.jsonl").write_text("")
    with pytest.raises(InputError, match=r"train-00000-of-00001\.jsonl and train-00000-of-00002"):
        training_texts(rte)


@pytest.mark.parametrize(
    ("names", "sentences"),
    [
        (["a-0-of-2.txt", "a-1-of-2.txt"], []),
        (["a-1-of-2.txt", "a-2-of-2.txt"], []),
        (["a.txt", "one-of-2.txt"], []),
        (
            ["s/a-00000-of-00003.txt", "s/a-00002-of-00003.txt"],
            ["s/a-…-of-00003.txt: 2 of 3 files are read, without 00001 for instance"],
        ),
        (
            ["a-0-of-2.txt", "b-1-of-2.txt"],
            [
                "a-…-of-2.txt: 1 of 2 files are read, without 1 for instance",
                "b-…-of-2.txt: 1 of 2 files are read, without 0 for instance",
            ],
        ),
    ],
)
def test_sets_of_files_of_which_some_are_missing_are_said(
    names: list[str], sentences: list[str]
) -> None:
    assert list(missing_shards(names)) == sentences
