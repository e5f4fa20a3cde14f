"""Suites as records with named fields: Hugging Face's files, what TFDS prepared, BabyLM's files."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdjax.data.tasks.raw import RawRow, RowSource, SplitName
from kdjax.data.tasks.suite import SuiteTask
from kdjax.data.tasks.tables import table_rows
from kdjax.data.text import tfds
from kdjax.data.text.records import Record
from kdjax.data.text.streams import TextError, check_characters
from kdjax.errors import InputError, nearest
from kdjax.storage.paths import local_path

LABEL = "label"
HIDDEN = (-1, "-1")
"""Labels of rows whose label is hidden: as a number, or as text."""
NAMES = {"train": ("train",), "dev": ("validation", "dev", "valid"), "test": ("test",)}
"""Kind of split -> its names in files."""
TextParts = tuple[tuple[str, tuple[str, ...]], ...]
"""For each text a template, and the fields that fill it."""
TEMPLATES: dict[str, TextParts] = {
    "multirc": (("Question: {} Answer: {}", ("question", "answer")), ("{}", ("paragraph",))),
    "wsc": (
        ('Does "{}" refer to "{}" in this passage?', ("span2_text", "span1_text")),
        ("{}", ("text",)),
    ),
}
"""Tasks of BabyLM whose texts are put together of several fields, as its pipeline does it."""


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
    sources = []
    for split, result, ending in task.split_names:
        names = [f"{name}{ending}" for name in NAMES[split]]
        files = _files(directory, names)
        if files:
            place = ", ".join(map(str, files))
            read = functools.partial(_rows, task, _read(files, task))
            sources.append(RowSource(split, result, place, read))
        elif split != "test":
            raise InputError(
                f"{directory}: task {task.name} has no {names[0]} file (.parquet, .jsonl or .json),"
                f" expected one, or evaluation.suite_tasks without {task.name}"
            )
    return tuple(sources)


def babylm_sources(root: Path, task: SuiteTask) -> tuple[RowSource, ...]:
    """Find the splits of a task of BabyLM: `TASK.train.jsonl` and `TASK.valid.jsonl`.

    Args:
        root: the directory `glue_filtered`.
        task: task of BabyLM.

    Raises:
        InputError: a file is missing.
    """
    names: dict[SplitName, str] = {"train": "train", "dev": "valid"}
    sources = []
    for split, name in names.items():
        path = root / f"{task.name}.{name}.jsonl"
        if not path.is_file():
            raise InputError(
                f"{root}: task {task.name} has no {path.name}, expected BabyLM's glue_filtered, or "
                f"evaluation.suite_tasks without {task.name}"
            )
        read = functools.partial(_rows, task, _read([path], task))
        sources.append(
            RowSource("train" if split == "train" else "dev", task.name, str(path), read)
        )
    return tuple(sources)


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
    sources = []
    for split, result, ending in task.split_names:
        name = f"{NAMES[split][0]}{ending}"
        try:
            source = tfds.find(f"{tfds.PREFIX}{directory}:{name}")
        except TextError:
            if split == "test":
                continue
            raise
        read_records = functools.partial(tfds.examples, source, features, _fields(task))
        read = functools.partial(_rows, task, read_records)
        sources.append(RowSource(split, result, str(source), read))
    return tuple(sources)


def tfds_root(uri: str) -> Path:
    """Return the directory that `tfds:DIR` or `tfds:glue` names.

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


def _files(directory: Path, names: tuple[str, ...] | list[str]) -> list[Path]:
    """List the files of the first of some splits that has any, in the order of their shards."""
    for name in names:
        pattern = re.compile(
            rf"{re.escape(name)}(-\d+-of-\d+)?\.(parquet|jsonl|json)(\.(gz|bz2|xz|zst))?"
        )
        files = [path for path in directory.glob(f"{name}*") if pattern.fullmatch(path.name)]
        if files:
            return sorted(files)
    return []


def _read(files: list[Path], task: SuiteTask) -> Callable[[], Iterator[Record]]:
    """Return what reads the records of files, one after another."""
    columns = {LABEL}
    for _, names in _parts(task):
        columns.update(names)

    def read() -> Iterator[Record]:
        for path in files:
            yield from table_rows(path, columns)

    return read


def _parts(task: SuiteTask) -> TextParts:
    """Return template and fields of each text of a task; most texts are a field as it is."""
    plain = tuple(("{}", (column,)) for column in task.columns)
    return TEMPLATES.get(task.name, plain)


def _fields(task: SuiteTask) -> str:
    return f"the fields of {task.title}: {', '.join((*task.columns, LABEL))}"


def _rows(
    task: SuiteTask, read: Callable[[], Iterator[Record]], _: Counter[str]
) -> Iterator[RawRow]:
    """Yield records as rows.

    Args:
        task: the task.
        read: reads the records.

    Raises:
        InputError: a record lacks a field, or a text is none.
    """
    parts = _parts(task)
    for record in read():
        texts = []
        for template, names in parts:
            fields = [_text(record, name, task) for name in names]
            texts.append(template.format(*fields))
        yield RawRow(record.where, tuple(texts), _label(record.fields.get(LABEL), task))


def _text(record: Record, name: str, task: SuiteTask) -> str:
    """Return a field that holds text.

    Raises:
        InputError: it is missing, or no text.
    """
    value = record.fields.get(name)
    if isinstance(value, str):
        check_characters(value, record.where)
        return value
    if name not in record.fields:
        hint = nearest(name, record.fields)
        raise InputError(f"{record.where}: has no {name!r}{hint}, expected {_fields(task)}")
    raise InputError(f"{record.where}: {name!r} is a {type(value).__name__}, expected text")


def _label(value: Any, task: SuiteTask) -> str | None:
    """Return a label as text: a class by its name; None where it is hidden or absent."""
    if value is None or value in HIDDEN:
        return None
    if isinstance(value, bool):
        value = int(value)
    label = str(value)
    return task.class_of(label) if task.classes else label
