"""The rows of tasks as the check sees them: groups of texts with their places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kdjax.config import EvaluationConfig
from kdjax.data.contamination.index import RowTexts
from kdjax.data.tasks.encoding import hash_fraction, is_selection_row
from kdjax.data.tasks.load import raw_tasks
from kdjax.data.tasks.raw import RawTask, RowSource

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
    read: Callable[[], Iterable[tuple[str, RowTexts]]]


def row_groups(config: EvaluationConfig) -> list[RowGroup]:
    """Find the rows of a recipe's tasks.

    Args:
        config: the tasks.

    Raises:
        InputError: a task cannot be read.
    """
    groups = []
    for task in raw_tasks(config):
        (training,) = task.of_split("train")
        if not task.from_suite:
            groups.append(_group(task, training, "train"))
            groups += [_group(task, source, "selection") for source in task.of_split("dev")]
            groups += [_group(task, source, "reported") for source in task.of_split("test")]
            continue
        # A suite's test rows are measured by its server; of dev rows with two uses one is named.
        if config.report_on == "unseen":
            groups.append(_group(task, training, "train", share=config.selection))
            groups.append(_group(task, training, "selection", share=config.selection))
        else:
            groups.append(_group(task, training, "train"))
        groups += [_group(task, source, "reported") for source in task.of_split("dev")]
    return groups


def digest(groups: Sequence[RowGroup]) -> str:
    """Compute the SHA-256 of all texts and what they are for; places are left out."""
    total = hashlib.sha256()
    for group in groups:
        total.update(json.dumps([group.task, group.result, group.use]).encode())
        for _, texts in group.read():
            total.update(json.dumps(texts).encode())
    return total.hexdigest()


def _group(task: RawTask, source: RowSource, use: Use, *, share: float | None = None) -> RowGroup:
    """Return the rows of a source that serve an end.

    Args:
        task: task of the rows.
        source: the source.
        use: what the rows are for.
        share: share of the source's rows that are selection rows, the others being trained on;
            None: all of them are for `use`.
    """

    def read() -> Iterator[tuple[str, RowTexts]]:
        for row in source.rows():
            if share is not None:
                is_selected = is_selection_row(hash_fraction(row.texts), share)
                if is_selected != (use == "selection"):
                    continue
            yield row.where, row.texts

    return RowGroup(task.name, source.result, use, read)
