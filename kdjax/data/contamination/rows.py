"""The rows of tasks as the check sees them: groups of texts with their places."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kdjax.config import EvaluationConfig
from kdjax.data.contamination.index import Row
from kdjax.data.tasks import labelled

Use = Literal["train", "selection", "reported"]


@dataclass(frozen=True)
class RowGroup:
    """Rows of a task that serve one end.

    Attributes:
        task: name of the task.
        result: name of the result that they are measured for; the task's own, but for tasks of
            several results.
        use: what they are for.
        read: reads place (file and line) and texts of each row, from the beginning at each call.
    """

    task: str
    result: str
    use: Use
    read: Callable[[], Iterable[tuple[str, Row]]]


def row_groups(config: EvaluationConfig) -> list[RowGroup]:
    """Find the rows of a recipe's tasks.

    Args:
        config: the tasks.

    Raises:
        InputError: a task cannot be read.
    """
    uses: dict[str, Use] = {"train": "train", "dev": "selection", "test": "reported"}
    groups = []
    for name, task in config.tasks.items():
        for split, rows in labelled.split_texts(name, task).items():
            groups.append(RowGroup(name, name, uses[split], functools.partial(_pairs, rows)))
    return groups


def digest(groups: Sequence[RowGroup]) -> str:
    """Compute the SHA-256 of all texts and what they are for; places are left out."""
    total = hashlib.sha256()
    for group in groups:
        total.update(json.dumps([group.task, group.result, group.use]).encode())
        for _, texts in group.read():
            total.update(json.dumps(texts).encode())
    return total.hexdigest()


def _pairs(rows: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Row]]:
    for place, text in rows:
        yield place, (text,)
