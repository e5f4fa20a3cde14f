"""GLUE as TFDS prepared it."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from kdjax.config.suites import SuiteTask
from kdjax.data.tasks.raw import RowSource
from kdjax.data.tasks.suite import splits_of
from kdjax.data.tasks.suite_rows import (
    LABEL,
    SPLIT_NAMES,
    expected_fields,
    rows_reader,
    whole_columns,
)
from kdjax.errors import InputError
from kdjax.storage.paths import local_path
from kdjax.text import tfds
from kdjax.text.streams import TextError


def tfds_sources(uri: str, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find the splits of a task that TFDS prepared, in `DIR/TASK/VERSION`.

    Args:
        uri: `tfds:DIR`, or `tfds:glue` for the directory of that name where TFDS keeps data sets.
        task: task of GLUE.

    Raises:
        InputError: there is no such directory, a split is missing, or its format needs TensorFlow.
    """
    directory = _tfds_directory(uri, task)
    features = (*task.columns, LABEL)
    parts = whole_columns(task)
    expected = expected_fields(task, parts)
    sources = []
    for split, result, ending in splits_of(task):
        name = f"{SPLIT_NAMES[split][0]}{ending}"
        try:
            source = tfds.find(f"{tfds.PREFIX}{directory}:{name}")
        except TextError:
            if split == "test":
                continue
            raise
        read_records = functools.partial(tfds.examples, source, features, expected)
        read = rows_reader(task, parts, read_records)
        sources.append(RowSource(split, result, str(source), read))
    return tuple(sources)


def tfds_root(uri: str) -> Path:
    """Return the directory that `tfds:DIR` or `tfds:glue` names.

    Args:
        uri: the name, prefix included.

    Raises:
        InputError: there is none.
    """
    name = uri.removeprefix(tfds.PREFIX)
    root = local_path(name, uri)
    if name == "glue" and not root.is_dir():
        # Where TFDS keeps what it prepared, unless it is told otherwise.
        home = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        root = local_path(home, "TFDS_DATA_DIR") / name
    if not root.is_dir():
        raise InputError(
            f"evaluation.glue, {uri}: {root} is no directory, expected one that TFDS prepared, "
            "with a directory for each task: tfds build glue --file_format=array_record"
        )
    return root


def _tfds_directory(uri: str, task: SuiteTask) -> Path:
    """Return the directory of a task's newest version."""
    root = tfds_root(uri)
    versions = [path.parent for path in (root / task.name).glob(f"*/{tfds.INFO}")]
    if not versions:
        raise InputError(
            f"evaluation.glue, {uri}: task {task.name} has no {task.name}/VERSION/{tfds.INFO}, "
            f"expected it there, or evaluation.suite_tasks without {task.name}"
        )
    return max(versions, key=_version)


def _version(directory: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", directory.name))
