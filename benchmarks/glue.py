"""GLUE's tasks as rows for benchmarks, with a vocabulary learned from their training texts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdjax.config import EvaluationConfig, TokenizerConfig
from kdjax.data.tasks.load import load_tasks, raw_tasks
from kdjax.data.tasks.task import Task
from kdjax.evaluation.finetuning.protocols import with_rows
from kdjax.tokenizers import tokenizer_training


def read(place: Path, names: tuple[str, ...], vocabulary: int, length: int) -> dict[str, Task]:
    """Read some of GLUE's tasks.

    Args:
        place: directory with GLUE's files, as `evaluation.glue` takes it.
        names: names of the tasks, such as mrpc.
        vocabulary: entries of the WordPiece vocabulary that is learned from the training texts.
        length: most tokens of a row.

    Raises:
        InputError: files are missing or damaged.
        TextError: the texts have too few words for the vocabulary.
    """
    config = EvaluationConfig(
        suite="glue", suite_tasks=names, glue=str(place), report_on="dev", protocols=("fixed",)
    )

    def texts() -> Iterator[str]:
        for task in raw_tasks(config):
            for source in task.of_split("train"):
                for row in source.rows():
                    yield from row.texts

    trained = tokenizer_training.train(TokenizerConfig(size=vocabulary), texts, str(place))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tokenizer.json"
        path.write_text(trained.json, encoding="utf-8")
        return {task.name: task for task in load_tasks(config, path, length)}


def first_rows(task: Task, count: int) -> Task:
    """Return a task with its first training rows alone, by the hash of their texts; 0: all."""
    rows = len(task.train)
    return with_rows(task, np.arange(min(count or rows, rows)))
