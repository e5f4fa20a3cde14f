"""GLUE without its files: how many rows its tasks have, and about how long they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdjax.config import EvaluationConfig
from kdjax.config.suites import SuiteTask, suite_tasks
from kdjax.data.tasks.task import Split, Task

BYTES_PER_TOKEN = 4.5
"""Bytes of English text that a WordPiece token of some 30 thousand entries stands for, about."""


@dataclass(frozen=True)
class OfficialSize:
    """The size of a task of GLUE.

    Attributes:
        train: number of training rows.
        dev: numbers of dev rows, one for each result.
        text_bytes: mean bytes of a training row's text, or of both its texts.
    """

    train: int
    dev: tuple[int, ...]
    text_bytes: int


SIZES: Mapping[str, OfficialSize] = {
    "cola": OfficialSize(8_551, (1_043,), 41),
    "sst2": OfficialSize(67_349, (872,), 54),
    "mrpc": OfficialSize(3_668, (408,), 238),
    "qqp": OfficialSize(363_846, (40_430,), 120),
    "stsb": OfficialSize(5_749, (1_500,), 116),
    "mnli": OfficialSize(392_702, (9_815, 9_832), 171),
    "qnli": OfficialSize(104_743, (5_463,), 225),
    "rte": OfficialSize(2_490, (277,), 321),
    "wnli": OfficialSize(635, (71,), 149),
}
"""Rows, and bytes of text, of GLUE's tasks, by the card of the data set `glue` of Hugging Face's
hub: its bytes of a training split over its rows, without label, index and offsets."""


def stand_in_tasks(evaluation: EvaluationConfig, seq_len: int) -> tuple[Task, ...]:
    """Return GLUE's tasks of a recipe with as many rows as they have officially, all of one length.

    There is no text in them: their sizes alone are of use.

    Args:
        evaluation: settings of the evaluation.
        seq_len: most tokens of a row.
    """
    chosen = suite_tasks("glue", evaluation.suite_tasks)
    return tuple(_stand_in(task, evaluation, seq_len) for task in chosen)


def tokens_of(task: SuiteTask, seq_len: int) -> int:
    """Estimate the tokens of a row, special tokens included."""
    frame = 1 + len(task.columns)
    return min(seq_len, round(SIZES[task.name].text_bytes / BYTES_PER_TOKEN) + frame)


def _stand_in(task: SuiteTask, evaluation: EvaluationConfig, seq_len: int) -> Task:
    """Return a task of official size."""
    size = SIZES[task.name]
    length = tokens_of(task, seq_len)
    held_back = round(size.train * evaluation.selection) if evaluation.report_on == "unseen" else 0
    reported = {}
    for (result, _), rows in zip(task.results, size.dev, strict=True):
        reported[result] = _rows(task, rows, length)
    selection = _rows(task, held_back, length) if held_back else reported[task.name]
    train = _rows(task, size.train - held_back, length)
    return Task(task.name, task.classes, task.metrics, train, selection, reported)


def _rows(task: SuiteTask, rows: int, length: int) -> Split:
    """Return so many rows of one length; classes take turns."""
    labels = (np.arange(rows) % max(1, len(task.classes))).astype(np.int32)
    second = np.full(rows, length // 2, np.int32) if len(task.columns) == 2 else None
    return Split(
        # One number in memory, however many rows there are.
        tokens=np.broadcast_to(np.int32(0), (rows * length,)),
        offsets=np.arange(rows + 1, dtype=np.int64) * length,
        second=second,
        labels=labels if task.classes else labels.astype(np.float32),
    )
