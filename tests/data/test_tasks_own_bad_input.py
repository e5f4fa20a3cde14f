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
from tests.corpora import make_tokenizer
from tests.data.own_tasks import ROWS, load, write_csv


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
        ("a.csv", "", {}, "no row is left"),
        ("a.csv", "text,label\nx,1\n", {"where": {"label": "2"}}, "no row is left by where"),
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
        ("a.csv", "text,label\nx,1\ny,2\n", {}, "2 rows leave the .* split empty"),
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
    with pytest.raises(InputError, match=r"dev\.csv: all 5 rows of the dev split are 'pos', exp"):
        load("t", config, tokenizer, 16)
