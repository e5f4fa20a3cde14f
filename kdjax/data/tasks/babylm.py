"""The tasks of BabyLM in the files of its evaluation data."""

from __future__ import annotations

from pathlib import Path

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.raw import RowSource, SplitName
from kdjax.data.tasks.suite_rows import TextParts, record_reader, rows_reader, whole_columns
from kdjax.errors import InputError

TEMPLATES: dict[str, TextParts] = {
    "multirc": (("Question: {} Answer: {}", ("question", "answer")), ("{}", ("paragraph",))),
    "wsc": (
        ('Does "{}" refer to "{}" in this passage?', ("span2_text", "span1_text")),
        ("{}", ("text",)),
    ),
}
"""Tasks whose texts are put together of several fields, as its pipeline does it."""


def babylm_sources(root: Path, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find the splits of a task of BabyLM: `TASK.train.jsonl` and `TASK.valid.jsonl`.

    Args:
        root: the directory `glue_filtered`.
        task: task of BabyLM.

    Raises:
        InputError: a file is missing.
    """
    names: dict[SplitName, str] = {"train": "train", "dev": "valid"}
    parts = TEMPLATES.get(task.name, whole_columns(task))
    sources = []
    for split, name in names.items():
        path = root / f"{task.name}.{name}.jsonl"
        if not path.is_file():
            raise InputError(
                f"{root}: task {task.name} has no {path.name}, expected BabyLM's glue_filtered, or "
                f"evaluation.suite_tasks without {task.name}"
            )
        read = rows_reader(task, parts, record_reader([path], parts))
        sources.append(RowSource(split, task.name, str(path), read))
    return tuple(sources)
