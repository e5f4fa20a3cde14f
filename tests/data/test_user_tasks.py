"""Tasks of one's own: labelled files into splits of token ids."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from kdjax.config import EvaluationConfig, TaskConfig
from kdjax.data.tasks.load import raw_tasks
from kdjax.data.tasks.task import Split, Task
from kdjax.errors import InputError
from kdjax.text.document import split_fraction
from tests.data.own_tasks import PAIRS, ROWS, load, write_csv


def splits_of(task: Task) -> dict[str, Split]:
    return {"train": task.train, "dev": task.selection, "test": task.reported[task.name]}


def rows_of(split: Split) -> list[tuple[tuple[int, ...], float]]:
    rows = np.split(split.tokens, split.offsets[1:-1])
    labels = split.labels.tolist()
    return [(tuple(row.tolist()), label) for row, label in zip(rows, labels, strict=True)]


def texts_of(split: Split) -> set[tuple[int, ...]]:
    """Return the token ids of a split's texts."""
    return {tokens for tokens, _ in rows_of(split)}


def ids(text: str, length: int) -> tuple[int, ...]:
    """Return the ids of a text: w0 is token 5; [CLS] is 2 and [SEP] is 3."""
    return (2, *(int(word[1:]) + 5 for word in text.split()[: length - 2]), 3)


def test_splits_follow_the_hash_of_the_identity(tmp_path: Path, tokenizer: Path) -> None:
    file = write_csv(tmp_path / "a.csv")
    task = load("t", TaskConfig(file, dev=0.2, test=0.3), tokenizer, 48)
    # Written anew: the hash decides, below 0.3, below 0.5, else.
    expected: dict[str, list[Any]] = {"train": [], "dev": [], "test": []}
    for row in ROWS:
        fraction = split_fraction(row["text"])
        split = "test" if fraction < 0.3 else "dev" if fraction < 0.5 else "train"
        expected[split].append((ids(row["text"], 48), ["neg", "pos"].index(row["label"])))
    assert task.classes == ("neg", "pos")
    assert task.outputs == 2
    assert not task.regression
    for name, rows in expected.items():
        split = splits_of(task)[name]
        assert sorted(rows_of(split)) == sorted(rows)
        assert len(split) == len(rows) > 30


def test_rows_are_framed_and_cut_to_length(tmp_path: Path, tokenizer: Path) -> None:
    train = load("t", TaskConfig(write_csv(tmp_path / "a.csv")), tokenizer, 12).train
    # Some texts are longer than 12 tokens, some shorter.
    assert train.lengths.min() < 12
    assert train.lengths.max() == 12
    known = {ids(row["text"], 12) for row in ROWS}
    assert texts_of(train) <= known
    assert train.tokens.dtype == np.int32
    assert train.labels.dtype == np.int32
    assert train.second is None


def test_file_sorted_by_label_gives_mixed_training_rows(tmp_path: Path, tokenizer: Path) -> None:
    labels = load("t", TaskConfig(write_csv(tmp_path / "a.csv")), tokenizer, 16).train.labels
    assert 0.3 < labels[: len(labels) // 2].mean() < 0.7


def test_no_text_is_in_two_splits(tmp_path: Path, tokenizer: Path) -> None:
    file = write_csv(tmp_path / "a.csv", ROWS + ROWS[::2] + ROWS[::3])
    task = load("t", TaskConfig(file, dev=0.3, test=0.3), tokenizer, 48)
    splits = splits_of(task)
    train = texts_of(splits["train"])
    dev = texts_of(splits["dev"])
    test = texts_of(splits["test"])
    assert sum(map(len, splits.values())) == 550
    assert not train & dev
    assert not train & test
    assert not dev & test


def test_task_on_the_corpus_s_documents_is_tested_on_held_out_ones_only(
    tmp_path: Path, tokenizer: Path
) -> None:
    records = {f"title {n}": {**row, "id": n} for n, row in enumerate(ROWS)}
    (tmp_path / "a.json").write_text(json.dumps(records))
    task = load("t", TaskConfig(str(tmp_path / "a.json"), test=0.1), tokenizer, 48)
    validation = {ids(row["text"], 48) for key, row in records.items() if split_fraction(key) < 0.1}
    assert {tokens for tokens, _ in rows_of(task.reported["t"])} == validation
    # With a column of its own the split is another one.
    by_column = load(
        "t", TaskConfig(str(tmp_path / "a.json"), identity="id", test=0.1), tokenizer, 48
    )
    chosen = {ids(row["text"], 48) for n, row in enumerate(ROWS) if split_fraction(str(n)) < 0.1}
    assert {tokens for tokens, _ in rows_of(by_column.reported["t"])} == chosen != validation


def test_every_kind_of_file_gives_the_same_task(tmp_path: Path, tokenizer: Path) -> None:
    files = [write_csv(tmp_path / "a.csv")]
    (tmp_path / "a.tsv").write_text(
        "\ufeffsource\ttext\tlabel\n"
        + "".join(f"{r['source']}\t{r['text']}\t{r['label']}\n" for r in ROWS),
        encoding="utf-8",
    )
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    files += [str(tmp_path / name) for name in ("a.tsv", "a.jsonl", "b.json")]
    tasks = [load("t", TaskConfig(file), tokenizer, 20) for file in files]
    for split in ("train", "dev", "test"):
        assert len({repr(rows_of(splits_of(task)[split])) for task in tasks}) == 1


def test_quotation_marks_are_text_in_tsv_and_syntax_in_csv(tmp_path: Path, tokenizer: Path) -> None:
    rows = "".join(f"w{n} w{n % 7}\t{n % 2}\n" for n in range(48))
    (tmp_path / "a.tsv").write_text('text\tlabel\n"w1 w2\t0\n' + rows)
    # In .csv a quoted field may have a line end.
    quoted = "".join(f'"w{n} w{n % 7}\n",{n % 2}\n' for n in range(48))
    (tmp_path / "a.csv").write_text('text,label\n"w1, ""w2""",0\n' + quoted)
    for name, expected in (("a.tsv", 49), ("a.csv", 49)):
        task = load("t", TaskConfig(str(tmp_path / name), dev=0.3, test=0.3), tokenizer, 20)
        assert sum(map(len, splits_of(task).values())) == expected


def test_rows_are_chosen_by_column_and_label(tmp_path: Path, tokenizer: Path) -> None:
    rows = [
        {**r, "source": "ab"[n % 2], "label": "none" if n % 5 == 0 else r["label"]}
        for n, r in enumerate(ROWS)
    ]
    config = TaskConfig(
        write_csv(tmp_path / "a.csv", rows), where={"source": "a"}, drop_labels=("none",)
    )
    task = load("t", config, tokenizer, 48)
    expected = {ids(r["text"], 48) for r in rows if r["source"] == "a" and r["label"] != "none"}
    assert set.union(*map(texts_of, splits_of(task).values())) == expected
    assert task.classes == ("neg", "pos")


def test_regression_has_numbers_and_one_output(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"text": r["text"], "label": n / 8} for n, r in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load("t", TaskConfig(str(tmp_path / "a.jsonl"), regression=True), tokenizer, 48)
    assert task.regression
    assert task.classes == ()
    assert task.outputs == 1
    assert task.metrics == ("pearson",)
    known = {ids(row["text"], 48): row["label"] for row in rows}
    assert task.train.labels.dtype == np.float32
    assert all(known[tokens] == label for tokens, label in rows_of(task.train))


def test_csv_field_may_be_longer_than_pythons_own_limit(tmp_path: Path, tokenizer: Path) -> None:
    """Python's reader takes 131,072 characters of a field unless it is told otherwise."""
    rows = [f"{'w1 ' * 50_000}w{n},{n % 2}" for n in range(2)]
    rows += [f"w{n} w{n + 1},{n % 2}" for n in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    config = TaskConfig(str(tmp_path / "a.csv"), dev=0.2, test=0.2)
    task = load("t", config, tokenizer, 16)
    assert sum(map(len, splits_of(task).values())) == 42


@pytest.mark.parametrize("name", ["A.CSV", "a.csv.gz", "a.tsv.xz", "a.jsonl.bz2"])
def test_task_may_be_compressed_and_its_suffix_in_upper_case(
    tmp_path: Path, tokenizer: Path, name: str
) -> None:
    separator = "\t" if "tsv" in name else ","
    lines = [f"w{n} w{n + 1}{separator}{n % 2}" for n in range(40)]
    lines.insert(0, f"text{separator}label")
    if "jsonl" in name:
        lines = [json.dumps({"text": f"w{n} w{n + 1}", "label": n % 2}) for n in range(40)]
    data = "\n".join(lines).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    (tmp_path / name).write_bytes(compress.get(Path(name).suffix, bytes)(data))
    config = TaskConfig(str(tmp_path / name), dev=0.2, test=0.2)
    task = load("t", config, tokenizer, 16)
    assert sum(map(len, splits_of(task).values())) == 40


def test_pairs_in_files_of_their_own_are_not_split_by_a_hash(
    tmp_path: Path, tokenizer: Path
) -> None:
    parts = {"train": PAIRS[:40], "dev": PAIRS[40:60], "test": PAIRS[60:]}
    parquet.write_table(pa.Table.from_pylist(parts["train"]), tmp_path / "train.parquet")
    write_csv(tmp_path / "dev.csv", parts["dev"])
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, parts["test"])))
    config = TaskConfig(
        train=str(tmp_path / "train.parquet"),
        dev=str(tmp_path / "dev.csv"),
        test=str(tmp_path / "test.jsonl"),
        text="premise",
        text_b="other",
        metrics=("accuracy", "f1"),
    )
    task = load("t", config, tokenizer, 100)
    assert task.classes == ("no", "yes")
    assert task.metrics == ("accuracy", "f1")
    for name, split in splits_of(task).items():
        expected = []
        for row in parts[name]:
            first = ids(row["premise"], 100)
            second = ids(row["other"], 100)[1:]
            expected.append((first + second, float(row["label"] == "yes")))
        assert sorted(rows_of(split)) == sorted(expected)
        assert split.second.min() >= 3


def test_pairs_in_one_file_are_split_by_both_texts(tmp_path: Path, tokenizer: Path) -> None:
    config = TaskConfig(
        write_csv(tmp_path / "a.csv", PAIRS), text="premise", text_b="other", dev=0.2, test=0.3
    )
    task = load("t", config, tokenizer, 100)
    tested = [row for row in PAIRS if split_fraction(f"{row['premise']}\n{row['other']}") < 0.3]
    assert len(task.reported["t"]) == len(tested)


def test_classes_have_the_order_that_is_set(tmp_path: Path, tokenizer: Path) -> None:
    config = TaskConfig(write_csv(tmp_path / "a.csv"), classes=("pos", "neg"))
    assert load("t", config, tokenizer, 16).classes == ("pos", "neg")
    fewer = TaskConfig(write_csv(tmp_path / "a.csv"), classes=("pos", "negative"))
    with pytest.raises(InputError, match=r"the label is 'neg' \(valid: negative, pos\), exp"):
        load("t", fewer, tokenizer, 16)


def test_raw_rows_of_a_file_have_their_lines(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv")
    (task,) = raw_tasks(EvaluationConfig(tasks={"t": TaskConfig(path)}))
    places = {row.where: row.texts for _, row in task.rows()}
    assert len(places) == len(ROWS)
    assert places[f"{path}, line 2"] == (ROWS[0]["text"],)
