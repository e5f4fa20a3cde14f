"""What is wrong with a task of one's own is said in one line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kdjax.config import TaskConfig
from kdjax.data.tasks import tables
from kdjax.errors import InputError
from tests.data.own_tasks import ROWS, load, write_csv
from tests.support.corpora import make_tokenizer


@pytest.mark.parametrize(
    ("name", "content", "changes", "message"),
    [
        ("a.csv", None, {}, r"a\.csv: cannot be read"),
        (
            "a.csv",
            "txt,label\nx,1\n",
            {},
            r"line 2: has no 'text' \(did you mean 'txt'\?\), .*evaluation\.tasks\.t\.text$",
        ),
        (
            "a.csv",
            "text,label\nx,1\n",
            {"label": "labels"},
            r"line 2: has no 'labels' \(did you mean 'label'\?\), .* evaluation\.tasks\.t\.label$",
        ),
        ("a.csv", "text,label\nx,1\n", {"where": {"source": "s"}}, "line 2: has no 'source'"),
        ("a.csv", "text,label\nx,1\n", {"identity": "key"}, "line 2: has no 'key'"),
        (
            "a.csv",
            "text,label\nx,1\ny,2,3\n",
            {},
            r"line 3: has 3 columns, expected the header's 2",
        ),
        ("a.csv", 'text,label\n"x"y,1\n', {}, "line 2: malformed CSV"),
        ("a.csv", "", {}, r"task t, .*a\.csv: has no rows, expected some$"),
        ("a.csv", "text,label\n", {}, r"task t, .*a\.csv: has no rows, expected some$"),
        ("a.jsonl", "", {}, r"a\.jsonl: has no rows, expected some$"),
        ("a.csv", "text,label,text\nx,1,y\n", {}, r"line 1: has 2 columns 'text', expected it onc"),
        ("a.tsv", "label\ttext\tlabel\n", {}, r"line 1: has 2 columns 'label', expected it once"),
        ("a.csv", "text,label\nx,1\ny,", {}, r"line 3: 'label' is empty, expected a label"),
        ("a.csv", "text,label\nx,1\ny, \n", {}, r"line 3: 'label' is empty, .* with ' ' leaves"),
        ("a.jsonl", '{"text": ["x"], "label": 1}', {}, r"line 1: 'text' is \['x'\] \(list\), exp"),
        (
            "a.jsonl",
            '{"text": {"a": 1}, "label": 1}',
            {},
            r"'text' is \{'a': 1\} \(dict\), expected",
        ),
        ("a.jsonl", '{"text": 5, "label": 1}', {}, r"line 1: 'text' is 5 \(int\), expected text, "),
        (
            "a.jsonl",
            '{"text": "x", "label": [1]}',
            {},
            r"'label' is \[1\] \(list\), expected text ",
        ),
        (
            "a.csv",
            "text,label\nx,1\n",
            {"where": {"label": "2"}},
            r"no row is left by where \{'label': '2'\}, expected some$",
        ),
        ("a.csv", "text,label\nx,1\n", {"drop_labels": ("1",)}, "no row is left by drop_labels, "),
        ("a.tsv", "text\tlabel\nx\n", {}, r"a\.tsv, line 2: has 1 columns"),
        ("a.jsonl", '{"text": "x"}\n', {}, r"a\.jsonl, line 1: has no 'label'"),
        ("a.jsonl", '{"text": "x", "label": null}\n', {}, r"line 1: 'label' is null"),
        ("a.jsonl", '{"text": "\\udc00", "label": 1}\n', {}, "half a surrogate pair"),
        (
            "a.csv",
            "text,label\nx,0.5\ny,high\n",
            {"regression": True},
            r"line 3: the label is 'high', expected a number",
        ),
        ("a.csv", "text,label\nx,1_000\n", {"regression": True}, r"the label is '1_000', expected"),
        (
            "a.csv",
            "text,label\nx,\u0663\n",
            {"regression": True},
            r"the label is '\u0663', expected",
        ),
        (
            "a.csv",
            "text,label\nx,0.5\ny,nan\n",
            {"regression": True},
            r"line 3: the label is 'nan', expected a number",
        ),
        ("a.csv", "text,label\nx,1\ny,1\n", {}, "has the one class '1', expected at least 2"),
        (
            "a.csv",
            "text,label\nx,1\ny,2\n",
            {"drop_labels": ("11",)},
            r"no row has the label '11' of drop_labels",
        ),
        ("a.csv", "text,label\nx,1\ny,2\n", {}, "2 used rows and none in the .* split"),
        (
            "a.xls",
            "text,label\n",
            {},
            r"expected a \.csv, \.tsv, \.jsonl, \.json or \.parquet file",
        ),
    ],
)
def test_unusable_task_file_is_refused_with_cause_and_place(
    tmp_path: Path, name: str, content: str | None, changes: dict[str, Any], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as e:
        load(
            "t",
            TaskConfig(str(tmp_path / name), **changes),
            make_tokenizer(tmp_path / "tokenizer.json"),
            16,
        )
    assert "\n" not in str(e.value)


def test_csv_field_beyond_our_limit_says_the_limit(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = csv.field_size_limit(100)
    monkeypatch.setattr(tables, "LINE_BYTES", 50)
    (tmp_path / "a.csv").write_text("text,label\n" + "x" * 101 + ",1\n")
    config = TaskConfig(str(tmp_path / "a.csv"))
    try:
        with pytest.raises(InputError, match=r"line 2: a field is longer than 100 characters"):
            load("t", config, tokenizer, 16)
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(("known", "message"), [(0, "100.0%"), (1, "75.0%"), (2, None)])
def test_task_that_is_mostly_unknown_is_refused(
    tmp_path: Path, tokenizer: Path, known: int, message: str | None
) -> None:
    words = ["w1", "w2"][:known] + ["ሰላም", "ዓለም", "ቋንቋ", "ጽሑፍ"][: 4 - known]
    text = " ".join(words)
    rows = [f"{text},{n % 2},{n}" for n in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,id", *rows]), encoding="utf-8")
    config = TaskConfig(str(tmp_path / "a.csv"), identity="id", dev=0.2, test=0.2)
    if message is None:
        assert load("t", config, tokenizer, 16).unknown == 0.5
        return
    with pytest.raises(InputError, match=rf"task t, .*: {message} of the tokens are \[UNK\]"):
        load("t", config, tokenizer, 16)


def test_missing_second_column_is_named(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"text": "w1", "text_c": "w2", "label": 1}]
    write_csv(tmp_path / "a.csv", rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        config = TaskConfig(str(tmp_path / name), text_b="text_b")
        with pytest.raises(
            InputError, match=r"has no 'text_b'.*, the column of evaluation\.tasks\.t\.text_b$"
        ):
            load("t", config, tokenizer, 16)
    config = TaskConfig(str(tmp_path / "a.parquet"), text="x", label="y")
    with pytest.raises(InputError, match=r"has the columns .*, expected some of x, y$"):
        load("t", config, tokenizer, 16)


def test_dev_rows_of_one_class_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    whole = write_csv(tmp_path / "a.csv")
    dev = write_csv(tmp_path / "dev.csv", ROWS[:5])
    config = TaskConfig(train=whole, dev=dev, test=whole)
    with pytest.raises(InputError, match=r"dev\.csv: .*has 5 rows, all of them 'pos', exp"):
        load("t", config, tokenizer, 16)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "text",
            pa.array([b"one", b"two"]),
            r"'text' is b'one' \(bytes\), expected text, the",
        ),
        ("text", pa.array([["one"], ["two"]]), r"'text' is \['one'\] \(list\), expected text, "),
        ("label", pa.array([1, 2], pa.date32()), r"'label' is datetime.date.* \(date\), expected"),
        (
            "label",
            pa.array([1, 2], pa.timestamp("ns")),
            r"a\.parquet: a value about row 0 cannot be read \(.*expected text or numbers",
        ),
    ],
)
def test_parquet_value_that_is_no_text_is_refused(
    tmp_path: Path, tokenizer: Path, column: str, values: pa.Array, message: str
) -> None:
    columns = {"text": pa.array(["x", "y"]), "label": pa.array([1, 2])}
    columns[column] = values
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        load("t", TaskConfig(str(tmp_path / "a.parquet")), tokenizer, 16)


def test_parquet_column_twice_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    columns = [pa.array(["x"]), pa.array(["1"]), pa.array(["y"])]
    table = pa.Table.from_arrays(columns, names=["text", "label", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: has 2 columns 'text', expected it once"):
        load("t", TaskConfig(str(tmp_path / "a.parquet")), tokenizer, 16)


def test_misspelt_parquet_column_is_named_among_all_columns(
    tmp_path: Path, tokenizer: Path
) -> None:
    table = pa.table({"Text": ["x"], "label": ["1"], "other": ["z"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"row 0: has no 'text' \(did you mean 'Text'\?\)"):
        load("t", TaskConfig(str(tmp_path / "a.parquet")), tokenizer, 16)


def test_columns_that_are_not_used_may_have_one_name(tmp_path: Path, tokenizer: Path) -> None:
    lines = [f"{row['text']},{row['label']},," for row in ROWS]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,,", *lines]))
    assert len(load("t", TaskConfig(str(tmp_path / "a.csv")), tokenizer, 16).train) > 100


def test_empty_label_may_be_dropped(tmp_path: Path, tokenizer: Path) -> None:
    rows = [*ROWS, {"text": "w1 w2", "label": "", "source": "s"}]
    config = TaskConfig(write_csv(tmp_path / "a.csv", rows), drop_labels=("",))
    task = load("t", config, tokenizer, 16)
    splits = [task.train, task.selection, *task.reported.values()]
    assert sum(len(split) for split in splits) == len(ROWS)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_split_file_without_rows_is_named(tmp_path: Path, tokenizer: Path, split: str) -> None:
    whole = write_csv(tmp_path / "a.csv")
    (tmp_path / "empty.csv").write_text("text,label\n")
    files = {"train": whole, "dev": whole, "test": whole, split: str(tmp_path / "empty.csv")}
    with pytest.raises(InputError, match=r"task t, .*empty\.csv: has no rows, expected some$"):
        load("t", TaskConfig(**files), tokenizer, 16)


def test_split_file_whose_rows_are_all_left_out_is_named(tmp_path: Path, tokenizer: Path) -> None:
    whole = write_csv(tmp_path / "a.csv")
    other = write_csv(tmp_path / "b.csv", [{**row, "source": "other"} for row in ROWS])
    config = TaskConfig(train=whole, dev=whole, test=other, where={"source": "s"})
    with pytest.raises(InputError, match=r"b\.csv: no row is left for the test split by where"):
        load("t", config, tokenizer, 16)
