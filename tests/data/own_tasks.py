"""Rows, files and reading of a task of one's own, for tests."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from kdjax.config import EvaluationConfig, TaskConfig
from kdjax.data.tasks.load import load_tasks
from kdjax.data.tasks.task import Task
from tests.support.corpora import texts

ROWS = [
    {"text": text, "label": "pos" if n < 150 else "neg", "source": "s"}
    for n, text in enumerate(texts(300, seed=5))
]
PAIRS = [
    {"premise": a, "other": b, "label": "yes" if n % 2 else "no"}
    for n, (a, b) in enumerate(zip(texts(90, seed=6), texts(90, seed=7), strict=True))
]


def write_csv(path: Path, rows: list[dict[str, Any]] = ROWS) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def load(name: str, config: TaskConfig, tokenizer: Path, length: int) -> Task:
    (task,) = load_tasks(EvaluationConfig(tasks={name: config}), tokenizer, length)
    return task
