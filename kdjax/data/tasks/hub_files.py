"""GLUE in files as on Hugging Face's hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.raw import RowSource
from kdjax.data.tasks.suite import splits_of
from kdjax.data.tasks.suite_rows import SPLIT_NAMES, record_reader, rows_reader, whole_columns
from kdjax.errors import InputError


def has_hub_task(root: Path, task: SuiteTask) -> bool:
    """Return whether a directory has files of a task as on Hugging Face's hub."""
    return bool(_split_files(root / task.name, ("train",)))


def hub_sources(root: Path, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find the splits of a task in `TASK/SPLIT….parquet`, .jsonl or .json.

    Test splits are found where they have files.

    Args:
        root: directory of the tasks' directories.
        task: task of GLUE.

    Raises:
        InputError: the file of a training or dev split is missing, some of its shards are, or it
            is there twice.
    """
    directory = root / task.name
    parts = whole_columns(task)
    sources = []
    for split, result, ending in splits_of(task):
        names = [f"{name}{ending}" for name in SPLIT_NAMES[split]]
        files = _shards(directory, names)
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


@dataclass(frozen=True)
class _SplitFile:
    """A file of a split: a shard, or all of it.

    Attributes:
        path: the file.
        content: name of the split, kind of file and number of shards: what all shards of one set
            share.
        number: number of the shard, from 0.
        shards: number of shards of its set; 1 where it is no shard.
    """

    path: Path
    content: tuple[str, str, str]
    number: int
    shards: int


def _split_files(directory: Path, names: Sequence[str]) -> list[_SplitFile]:
    """List the files of a split, by any of its names: set by set, ascending by shard number."""
    files = []
    for name in names:
        pattern = re.compile(
            rf"{re.escape(name)}(?:-(?P<number>\d+)-of-(?P<shards>\d+))?"
            r"(?P<kind>\.(?:parquet|jsonl|json)(?:\.(?:gz|bz2|xz|zst))?)",
            re.ASCII,
        )
        for path in directory.glob(f"{name}*"):
            match = pattern.fullmatch(path.name)
            if match is not None:
                content = (name, match["kind"], match["shards"] or "")
                number = int(match["number"] or 0)
                files.append(_SplitFile(path, content, number, int(match["shards"] or 1)))
    # Not by path: numbers need not be padded, and "10" comes before "2" as text.
    return sorted(files, key=lambda file: (file.content, file.number))


def _shards(directory: Path, names: Sequence[str]) -> list[Path]:
    """List the paths of a split's shards, ascending by shard number; empty where it has no file.

    Raises:
        InputError: shards are missing, or there are files of two sets, which may hold the same
            rows.
    """
    files = _split_files(directory, names)
    if not files:
        return []
    first = files[0]
    for file in files:
        if file.content != first.content:
            raise InputError(
                f"{directory}: has {first.path.name} and {file.path.name}, expected the {names[0]} "
                "split once: the shards of one set, in one format"
            )
    present = {file.number for file in files}
    missing = sorted(set(range(first.shards)) - present)
    if missing or len(files) != first.shards:
        lacks = f"shard {missing[0]:05} is missing" if missing else "others are beside them"
        raise InputError(
            f"{directory}: has {len(files)} of the {first.shards} files of {first.path.name}'s set "
            f"({lacks}), expected all of them, 00000 to {first.shards - 1:05}"
        )
    return [file.path for file in files]
