"""A small synthetic GLUE, as its official files are, and BabyLM's tasks in theirs.

The class of a row follows from the first word of its last text, so that a small model can learn
it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.config.suites import BABYLM, GLUE, SuiteTask
from kdjax.data.tasks.official_rows import COLUMNS
from kdjax.data.tasks.suite import splits_of

ROWS = {"train": 120, "dev": 20, "test": 7}
"""Rows of each split."""
WORDS_A_CLASS = 8
"""Words that a class begins with."""
SHORT_ROWS = 2
"""Rows of the official QQP training file that lack columns."""
OFFICIAL_HEADERS = {
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "qqp": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "stsb": ("index", "genre", "filename", "sentence1", "sentence2", "score"),
    "mnli": ("index", "promptID", "genre", "sentence1", "sentence2", "label1", "gold_label"),
    "qnli": ("index", "question", "sentence", "label"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "wnli": ("index", "sentence1", "sentence2", "label"),
    "sst2": ("sentence", "label"),
}
"""Task -> columns of its labelled files; CoLA's have no header."""


@dataclass(frozen=True)
class Row:
    """A row: its texts, and the index of its class or its score."""

    texts: tuple[str, ...]
    label: float


def rows_of(
    task: SuiteTask, split: str, words: Sequence[str], ending: str = "", count: int = 0
) -> list[Row]:
    """Draw the rows of a split: always the same ones for the same names, words and number.

    Args:
        task: task of GLUE or BabyLM.
        split: `train`, `dev` or `test`.
        words: words that texts are made of, 26 at least.
        ending: what the split's name ends in, such as `_mismatched`.
        count: number of rows; 0: that of `ROWS`.
    """
    seed = sum(map(ord, f"{task.title} {split}{ending}"))
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count or ROWS[split]):
        texts = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in task.columns]
        if task.classes:
            label = float(number % len(task.classes))
            word = words[int(label) * WORDS_A_CLASS + int(rng.integers(WORDS_A_CLASS))]
        else:
            label = float(rng.integers(0, 26)) / 5
            word = words[int(label * 5)]
        texts[-1] = f"{word} {texts[-1]}"
        # A quotation mark that is never closed.
        if number == 3:
            texts[0] = f'"{texts[0]}'
        rows.append(Row(tuple(texts), label))
    return rows


def write_glue(
    root: Path, words: Sequence[str], tasks: Sequence[SuiteTask] = GLUE, **counts: int
) -> Path:
    """Write GLUE's official TSV files.

    Args:
        root: directory of the tasks' directories.
        words: words that texts are made of.
        tasks: tasks to write.
        counts: split -> number of rows, where it is not that of `ROWS`.
    """
    for task in tasks:
        for split, _, ending in splits_of(task):
            rows = rows_of(task, split, words, ending, counts.get(split, 0))
            mark = "\ufeff" if task.name == "mrpc" else ""
            write(
                root / task.title / f"{split}{ending}.tsv", mark + official_lines(task, split, rows)
            )
    return root


def write_babylm(root: Path, words: Sequence[str], **counts: int) -> Path:
    """Write BabyLM's `glue_filtered`.

    Args:
        root: directory of the files.
        words: words that texts are made of.
        counts: split -> number of rows, where it is not that of `ROWS`.
    """
    for task in BABYLM:
        for split, name in (("train", "train"), ("dev", "valid")):
            rows = rows_of(task, split, words, count=counts.get(split, 0))
            records = list(records_of(task, rows, hidden=False))
            for number, record in enumerate(records):
                # Two tasks have their texts in parts.
                if task.name == "multirc":
                    record["answer"] = words[number % len(words)]
                if task.name == "wsc":
                    record["span1_text"] = record.pop("question")
                    record["span2_text"] = words[number % len(words)]
            write(root / f"{task.name}.{name}.jsonl", json_lines(records))
    return root


def official_lines(task: SuiteTask, split: str, rows: Sequence[Row]) -> str:
    """Return rows as the text of a GLUE task's official file.

    Args:
        task: the task.
        split: which of its files; `test` has no labels.
        rows: made-up rows.
    """
    lines = []
    if split == "test" and task.name == "cola":
        lines.append("index\tsentence")
        lines += [f"{number}\t{row.texts[0]}" for number, row in enumerate(rows)]
    elif task.name == "cola":
        lines += [f"gj04\t{int(row.label)}\t\t{row.texts[0]}" for row in rows]
    else:
        columns = COLUMNS[task.name]
        header = OFFICIAL_HEADERS[task.name]
        if split == "test":
            rest = [name for name in header if name not in (columns.label, "label1", "index")]
            header = ("index", *rest)
        lines.append("\t".join(header))
        for number, row in enumerate(rows):
            fields = {name: f"x{number}" for name in header}
            fields |= dict(zip(columns.texts, row.texts, strict=True))
            fields |= {"#1 ID": str(number), "#2 ID": str(number + 1000)}
            fields[columns.label] = _official_label(task, row.label)
            lines.append("\t".join(fields[name] for name in header))
    # As in the published file, whose reader leaves such rows out.
    if task.name == "qqp" and split == "train":
        lines += ["900\t1\t2\twhat is", "this ?\tw1\t1"]
    return "\n".join(lines) + "\n"


def _official_label(task: SuiteTask, label: float) -> str:
    if not task.classes:
        return f"{label:.3f}"
    if task.named:
        return task.classes[int(label)]
    return str(int(label))


def records_of(task: SuiteTask, rows: Sequence[Row], hidden: bool) -> Iterator[dict[str, Any]]:
    """Yield rows as records with the fields that they have on Hugging Face's Hub.

    Args:
        task: the task.
        rows: made-up rows.
        hidden: whether labels are hidden, as in a test split: they are -1 then.
    """
    for number, row in enumerate(rows):
        label: float = int(row.label) if task.classes else row.label
        if hidden:
            label = -1 if task.classes else -1.0
        yield {**dict(zip(task.columns, row.texts, strict=True)), "label": label, "idx": number}


def json_lines(records: Sequence[dict[str, Any]]) -> str:
    """Return records as JSON, one a line."""
    return "".join(json.dumps(record) + "\n" for record in records)


def write(path: Path, text: str) -> None:
    """Write a file, and the directories that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
