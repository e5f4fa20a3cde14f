"""Predictions as GLUE's server takes them: a TSV file for each result, and a zip of all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdjax.config.suites import GLUE, SuiteTask
from kdjax.errors import InputError, nearest
from kdjax.storage.files import entries
from kdjax.storage.whole_directory import whole_directory

ARCHIVE = "submission.zip"
DIAGNOSTIC = "AX.tsv"
"""File of GLUE's diagnostic set."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of the zip's members, so that equal predictions make equal bytes."""


def write_predictions(directory: Path, predictions: Mapping[str, NDArray[Any]]) -> Path:
    """Write the files of GLUE's server, and a zip of them: all, or none.

    A file has the columns `index` and `prediction`: classes by name or by index as the server wants
    them, STS-B's scores within 0 and 5 to three digits.

    Args:
        directory: directory to make; where it is there, it is empty.
        predictions: name of a result -> `[N]`: predicted class indices, or numbers, of its test
            rows in the order of their file.

    Returns:
        The zip.

    Raises:
        InputError: a result is unknown, a prediction is none of its task's, or the directory is not
            empty or cannot be written.
    """
    # All lines are made before anything is written.
    files = {}
    for result, values in predictions.items():
        files[file_name(result)] = _lines(result, values)
    check_empty(directory)
    with whole_directory(directory) as unfinished:
        for name, text in files.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        _write_archive(unfinished / ARCHIVE, files)
    return directory / ARCHIVE


def _write_archive(path: Path, files: Mapping[str, str]) -> None:
    """Write a zip of files, by their names, whose bytes follow from their texts alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)


def check_empty(directory: Path) -> None:
    """Check that a directory can be made: it is not there, or is empty and can be replaced.

    Args:
        directory: directory that is to be made.

    Raises:
        InputError: it holds files, or is a file, a link or the current directory.
    """
    if entries(directory):
        raise InputError(f"{directory}: holds files, expected an empty directory, or none")
    is_other = directory.exists() and not directory.is_dir()
    if is_other or directory.is_symlink() or directory.resolve() == Path.cwd():
        raise InputError(f"{directory}: expected a directory of its own, that can be replaced")


def missing_files(results: Iterable[str]) -> list[str]:
    """List the files that GLUE's server asks for besides those of some results.

    The diagnostic set is always among them: it has no training rows, and is not read here.
    """
    written = {file_name(result) for result in results}
    wanted = []
    for task in GLUE:
        wanted += [file_name(result) for result, _ in task.results]
    return [name for name in (*wanted, DIAGNOSTIC) if name not in written]


def file_name(result: str) -> str:
    """Return the server's name of a result's file.

    Args:
        result: name of a result of GLUE; MNLI has two.

    Raises:
        InputError: there is no such result.
    """
    task = _task_of(result)
    if not task.mismatched:
        return f"{task.title}.tsv"
    if result == task.mismatched:
        return f"{task.title}-mm.tsv"
    return f"{task.title}-m.tsv"


def _task_of(result: str) -> SuiteTask:
    """Return the task of a result.

    Raises:
        InputError: there is none.
    """
    tasks: dict[str, SuiteTask] = {}
    for task in GLUE:
        tasks |= dict.fromkeys((name for name, _ in task.results), task)
    if result not in tasks:
        raise InputError(
            f"predictions of {result!r:.80}{nearest(result, tasks)}: expected results of GLUE"
        )
    return tasks[result]


def _lines(result: str, values: NDArray[Any]) -> str:
    """Return the text of a result's file."""
    task = _task_of(result)
    lines = ["index\tprediction"]
    for index, value in enumerate(np.asarray(values).tolist()):
        lines.append(f"{index}\t{_prediction(task, result, index, value)}")
    return "\n".join(lines) + "\n"


def _prediction(task: SuiteTask, result: str, index: int, value: float) -> str:
    """Return a prediction as the server wants it.

    Raises:
        InputError: it is no number, or no index of a class.
    """
    where = f"prediction {index} of {result} is {value!r}"
    if not task.classes:
        if not np.isfinite(value):
            raise InputError(f"{where}, expected a finite number")
        low, high = task.bounds
        return f"{min(max(value, low), high):.3f}"
    if value not in range(len(task.classes)):
        raise InputError(f"{where}, expected the index of one of {len(task.classes)} classes")
    if task.named:
        return task.classes[int(value)]
    return str(int(value))
