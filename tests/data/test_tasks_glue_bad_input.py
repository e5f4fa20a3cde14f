"""What is wrong with a directory of GLUE is said in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kdjax.config import EvaluationConfig
from kdjax.config.suites import GLUE
from kdjax.data.tasks import official_rows
from kdjax.data.tasks.load import load_tasks, raw_tasks
from kdjax.data.tasks.official_sizes import OfficialSize
from kdjax.errors import InputError
from tests.support import glue


def read(place: object, tokenizer: Path, *tasks: str, **settings: object) -> None:
    config = EvaluationConfig(suite="glue", glue=str(place), suite_tasks=tasks, **settings)
    load_tasks(config, tokenizer, 40)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glue.write_official(tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize(
    ("task", "file", "old", "new", "message"),
    [
        ("rte", "RTE/train.tsv", "\tentailment\n", "\tmaybe\n", r"line 2: the label is 'maybe'"),
        ("sst2", "SST-2/dev.tsv", "\t1\n", "\t2\n", r"line 3: the label is '2' \(valid: negative"),
        ("sst2", "SST-2/dev.tsv", "\t1\n", "\t00019\n", r"line 3: the label is '00019' \(valid"),
        ("sst2", "SST-2/dev.tsv", "\t1\n", "\t01\n", r"line 3: the label is '01' \(valid"),
        ("sst2", "SST-2/dev.tsv", "\t1\n", "\t\u0661\n", "line 3: the label is '\u0661' \\(valid"),
        ("sst2", "SST-2/dev.tsv", "\t1\n", "\t\n", r"line 3: the label is '' \(valid"),
        (
            "stsb",
            "STS-B/dev.tsv",
            "index",
            "score",
            r"line 1: has 2 columns 'score', expected it o",
        ),
        ("stsb", "STS-B/dev.tsv", "\tx1\tx1\t", "\tx1\tx1\tx1\t", r"line 3: has 7 columns, exp"),
        (
            "sst2",
            "SST-2/train.tsv",
            "\t1\n",
            "\n",
            r"train\.tsv, line 3: has 1 columns, expected 2",
        ),
        ("rte", "RTE/train.tsv", "sentence2", "second", r"line 1: has no column 'sentence2'"),
        (
            "rte",
            "RTE/train.tsv",
            "\tlabel\n",
            "\tx\n",
            r"line 1: has no column 'label'.* GLUE's RTE",
        ),
        (
            "cola",
            "CoLA/train.tsv",
            "gj04\t1",
            "1",
            r"train\.tsv, line 2: has 3 columns, expected 4",
        ),
        (
            "sst2",
            "SST-2/dev.tsv",
            "\t0\n",
            "\t1\n",
            r"the dev split has 20 rows, all of them 'positive'",
        ),
    ],
)
def test_damaged_file_is_refused_with_its_line(
    tmp_path: Path, tokenizer: Path, task: str, file: str, old: str, new: str, message: str
) -> None:
    glue.write_official(tmp_path, [known for known in GLUE if known.name == task])
    path = tmp_path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as e:
        read(tmp_path, tokenizer, task)
    assert "\n" not in str(e.value)


def test_score_outside_the_range_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    glue.write_hub(tmp_path, ".jsonl", [GLUE[4]])
    path = tmp_path / "stsb" / "validation.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"label": ', '"label": 9')
    path.write_text("\n".join(lines))
    with pytest.raises(
        InputError, match=r"validation\.jsonl, line 3: the label is '9.*, expected 0 to 5"
    ):
        read(tmp_path, tokenizer, "stsb")


def test_training_rows_without_labels_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    glue.write_hub(tmp_path, ".jsonl", [GLUE[0]])
    train = tmp_path / "cola" / "train.jsonl"
    train.write_text((tmp_path / "cola" / "test.jsonl").read_text())
    with pytest.raises(InputError, match=r"train\.jsonl, line 1: has no label, expected one in a"):
        read(tmp_path, tokenizer, "cola")


def test_selection_of_one_class_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    glue.write_official(tmp_path, [GLUE[1]], train=8)
    with pytest.raises(InputError, match=r"too few rows are in evaluation\.selection, 0\.01"):
        read(tmp_path, tokenizer, "sst2", selection=0.01)


def test_missing_task_or_file_is_named(official: Path, tmp_path: Path, tokenizer: Path) -> None:
    shutil.copytree(official / "RTE", tmp_path / "RTE")
    with pytest.raises(
        InputError, match=r"task cola is missing, expected CoLA/train\.tsv, or eval"
    ):
        read(tmp_path, tokenizer)
    (tmp_path / "RTE" / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"RTE: task rte has no dev\.tsv, expected it there"):
        read(tmp_path, tokenizer, "rte")


def test_directory_of_another_layout_is_named(official: Path, tmp_path: Path) -> None:
    def refusal(place: object) -> str:
        config = EvaluationConfig(suite="glue", glue=str(place), suite_tasks=("rte",))
        with pytest.raises(InputError) as e:
            list(raw_tasks(config))
        return str(e.value)

    assert "is no directory" in refusal(tmp_path / "none")
    assert "is no directory, expected one that TFDS prepared" in refusal(f"tfds:{tmp_path}/none")
    assert f"looks like one task's directory, expected the one above it, {official}" in refusal(
        official / "RTE"
    )
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "glue_data").symlink_to(official)
    assert "has no task of GLUE, but" in refusal(tmp_path / "above")
    glue.write_babylm(tmp_path / "babylm")
    assert "looks like BabyLM's glue_filtered" in refusal(tmp_path / "babylm")
    prepared = tmp_path / "prepared" / "rte" / "2.0.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    expected = f"looks like what TFDS prepared, expected tfds:{tmp_path}/prepared"
    assert expected in refusal(tmp_path / "prepared")
    (tmp_path / "empty").mkdir()
    assert "has no task of GLUE, expected a directory with" in refusal(tmp_path / "empty")


def test_list_of_mrpc_dev_rows_that_is_cut_within_a_line_is_refused(
    tmp_path: Path, tokenizer: Path
) -> None:
    glue.write_microsoft_mrpc(tmp_path)
    ids = tmp_path / "MRPC" / "dev_ids.tsv"
    ids.write_text(ids.read_text()[:-2])
    with pytest.raises(
        InputError,
        match=r"dev_ids\.tsv, line 20: no row of msr.* has the ids 139 and 113, expected one for "
        r"each of its 20 lines; msr_paraphrase_train\.txt has 140 rows",
    ):
        read(tmp_path, tokenizer, "mrpc")


def test_list_of_mrpc_dev_rows_that_is_empty_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    glue.write_microsoft_mrpc(tmp_path)
    (tmp_path / "MRPC" / "dev_ids.tsv").write_text("")
    with pytest.raises(
        InputError, match=r"dev_ids\.tsv: has no rows, expected the two ids of each"
    ):
        read(tmp_path, tokenizer, "mrpc")


def test_half_a_list_of_mrpc_dev_rows_is_refused_beside_all_rows(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many rows as are written here, in place of MRPC's 3,668 and 408.
    sizes = {"mrpc": OfficialSize(120, (20,), 238)}
    monkeypatch.setattr(official_rows, "SIZES", sizes)
    glue.write_microsoft_mrpc(tmp_path)
    read(tmp_path, tokenizer, "mrpc")
    ids = tmp_path / "MRPC" / "dev_ids.tsv"
    lines = ids.read_text().splitlines(keepends=True)
    ids.write_text("".join(lines[:10]))
    with pytest.raises(InputError, match=r"has 10 ids for the 140 rows .*, expected GLUE's 20"):
        read(tmp_path, tokenizer, "mrpc")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"line 1: 'sentence1' is 5 \(int\), expected text"),
        (["a"], r"line 1: 'sentence1' is \['a'\] \(list\), expected text"),
    ],
)
def test_text_of_another_type_is_shown_with_it(
    tmp_path: Path, tokenizer: Path, value: object, message: str
) -> None:
    glue.write_hub(tmp_path, ".jsonl", [GLUE[7]])
    row = {"sentence1": value, "sentence2": "b", "label": 0}
    (tmp_path / "rte" / "train.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=message):
        read(tmp_path, tokenizer, "rte")
