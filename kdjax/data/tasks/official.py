"""GLUE as its official download has it: a directory of TSV files for each task."""

from __future__ import annotations

import functools
from pathlib import Path

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.official_rows import mrpc_rows, official_rows
from kdjax.data.tasks.raw import RowSource, SplitName
from kdjax.data.tasks.suite import splits_of
from kdjax.errors import InputError

MRPC_TRAIN = "msr_paraphrase_train.txt"
MRPC_TEST = "msr_paraphrase_test.txt"
MRPC_DEV_IDS = "dev_ids.tsv"


def has_task(root: Path, task: SuiteTask) -> bool:
    """Return whether a directory has files of a task in this layout."""
    directory = root / task.title
    return any(directory.glob("*.tsv")) or (directory / MRPC_TRAIN).is_file()


def official_sources(root: Path, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find the splits of a task; test splits where their files are there.

    Args:
        root: directory of the tasks' directories.
        task: task of GLUE.

    Raises:
        InputError: the file of a training or dev split is missing.
    """
    directory = root / task.title
    if task.name == "mrpc" and not (directory / "train.tsv").is_file():
        return _mrpc_sources(directory, task)
    sources = []
    for split, result, ending in splits_of(task):
        path = directory / f"{split}{ending}.tsv"
        if path.is_file():
            sources.append(_source(split, result, path, task))
        elif split != "test":
            raise InputError(
                f"{directory}: task {task.name} has no {path.name}, expected it there, or "
                f"evaluation.suite_tasks without {task.name}"
            )
    return tuple(sources)


def _source(split: SplitName, result: str, path: Path, task: SuiteTask) -> RowSource:
    read = functools.partial(official_rows, path, task, split != "test")
    return RowSource(split, result, str(path), read)


def _mrpc_sources(directory: Path, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find MRPC's splits where it is as Microsoft distributes it, with GLUE's list of dev rows."""
    path = directory / MRPC_TRAIN
    ids = directory / MRPC_DEV_IDS
    for needed in (path, ids):
        if not needed.is_file():
            raise InputError(
                f"{directory}: task mrpc has no train.tsv and no {needed.name}, expected train.tsv "
                f"and dev.tsv, or {MRPC_TRAIN} with {MRPC_DEV_IDS}"
            )
    train = RowSource(
        "train", task.name, str(path), functools.partial(mrpc_rows, path, ids, task, False)
    )
    dev_path = directory / "dev.tsv"
    if dev_path.is_file():
        dev = _source("dev", task.name, dev_path, task)
    else:
        read = functools.partial(mrpc_rows, path, ids, task, True)
        dev = RowSource("dev", task.name, f"{path}, rows of {ids.name}", read)
    sources = [train, dev]
    for name in ("test.tsv", MRPC_TEST):
        if (directory / name).is_file():
            sources.append(_source("test", task.name, directory / name, task))
            break
    return tuple(sources)
