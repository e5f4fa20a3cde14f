"""GLUE in files as on Hugging Face's hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.raw import RowSource
from kdjax.data.tasks.suite import splits_of
from kdjax.data.tasks.suite_rows import SPLIT_NAMES, record_reader, rows_reader, whole_columns
from kdjax.errors import InputError


def has_hub_task(root: Path, task: SuiteTask) -> bool:
    """Return whether a directory has files of a task as on Hugging Face's hub."""
    return bool(_files(root / task.name, ("train",)))


def hub_sources(root: Path, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find the splits of a task in `TASK/SPLIT….parquet`, .jsonl or .json.

    Test splits are found where they have files.

    Args:
        root: directory of the tasks' directories.
        task: task of GLUE.

    Raises:
        InputError: the file of a training or dev split is missing.
    """
    directory = root / task.name
    parts = whole_columns(task)
    sources = []
    for split, result, ending in splits_of(task):
        names = [f"{name}{ending}" for name in SPLIT_NAMES[split]]
        files = _files(directory, names)
        if files:
            place = ", ".join(map(str, files))
            read = rows_reader(task, parts, record_reader(files, parts))
            sources.append(RowSource(split, result, place, read))
        elif split != "test":
            raise InputError(
                f"{directory}: task {task.name} has no {names[0]} file (.parquet, .jsonl or .json),"
                f" expected one, or evaluation.suite_tasks without {task.name}"
            )
    return tuple(sources)


def _files(directory: Path, names: Sequence[str]) -> list[Path]:
    """List the files of the first of some splits that has any, in the order of their shards."""
    for name in names:
        pattern = re.compile(
            rf"{re.escape(name)}(-\d+-of-\d+)?\.(parquet|jsonl|json)(\.(gz|bz2|xz|zst))?"
        )
        files = [path for path in directory.glob(f"{name}*") if pattern.fullmatch(path.name)]
        if files:
            return sorted(files)
    return []
