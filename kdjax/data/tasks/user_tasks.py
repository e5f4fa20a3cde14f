"""The user's own tasks: one file that is split by a hash, or a file for each split."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from kdjax.config import TaskConfig
from kdjax.config.suites import ANY_NUMBER
from kdjax.data.tasks.raw import (
    RawRow,
    RawTask,
    RowSource,
    SplitName,
    label_in_message,
    parse_label,
)
from kdjax.data.tasks.tables import field_text, table_rows
from kdjax.errors import InputError, counted, nearest
from kdjax.text.document import split_fraction
from kdjax.text.records import Record
from kdjax.text.sources import locate

SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True, slots=True)
class _OwnRow:
    """A row that is used, with the string whose hash decides its split."""

    row: RawRow
    label: str
    identity: str


def user_task(name: str, config: TaskConfig) -> RawTask:
    """Read a task of one's own.

    One file is split by `split_fraction`: below `test` a row is tested on, in the next `dev`
    settings are chosen, and the rest is trained on. Within a split rows are in the order of their
    hash, so that a file that is sorted by label gives mixed rows.

    Args:
        name: name of the task.
        config: files and columns of the task.

    Raises:
        InputError: a missing file or column, fewer than 2 classes, a label that is dropped and
            does not occur, or an empty split.
    """
    # The rows of each split
    if config.file:
        rows = _sorted_rows(name, config, config.file)
        splits = _split(rows, config)
        places = dict.fromkeys(SPLITS, config.file)
    else:
        places = {"train": config.train, "dev": str(config.dev), "test": str(config.test)}
        splits = {split: _sorted_rows(name, config, places[split]) for split in SPLITS}

    # Those whose label is not dropped are used.
    where = f"task {name}, {places['train']}"
    every = list(itertools.chain.from_iterable(splits[split] for split in SPLITS))
    _check_dropped(config, every, where)
    used = [row for row in every if row.label not in config.drop_labels]
    if not used:
        chosen_by = f"where {config.where}" if config.where else "drop_labels"
        if config.where and config.drop_labels:
            chosen_by += " and drop_labels"
        raise InputError(f"{where}: no row is left by {chosen_by}, expected some")

    # Labels come before splits: a column that is no label explains what else is wrong.
    classes = _classes(config, used, where)
    if config.regression:
        for row in used:
            parse_label(row.row, row.label, ANY_NUMBER)

    # Every split needs a row.
    sources = []
    for split in SPLITS:
        rows_of_split = [row.row for row in splits[split] if row.label not in config.drop_labels]
        if not rows_of_split and not config.file:
            raise InputError(
                f"task {name}, {places[split]}: no row is left for the {split} split by where and "
                "drop_labels, expected some"
            )
        if not rows_of_split:
            raise InputError(
                f"{where}: {counted(len(used), 'used row')} and none in the {split} "
                "split, expected a row in each split"
            )
        read = functools.partial(_again, rows_of_split)
        sources.append(RowSource(split, name, places[split], read))
    return RawTask(
        name,
        classes,
        config.metric_names,
        bool(config.text_b),
        tuple(sources),
    )


def _again(rows: Sequence[RawRow], _: Counter[str]) -> Iterator[RawRow]:
    """Yield the rows of a source, which were read already, as often as it is asked for."""
    return iter(rows)


def _split(rows: Sequence[_OwnRow], config: TaskConfig) -> dict[SplitName, list[_OwnRow]]:
    """Split rows by the hash of their identities."""
    dev, test = config.shares
    splits: dict[SplitName, list[_OwnRow]] = {split: [] for split in SPLITS}
    for row in rows:
        fraction = split_fraction(row.identity)
        if fraction < test:
            splits["test"].append(row)
        elif fraction < test + dev:
            splits["dev"].append(row)
        else:
            splits["train"].append(row)
    return splits


def _classes(config: TaskConfig, rows: Sequence[_OwnRow], where: str) -> tuple[str, ...]:
    """Return the classes in the order of their indices; none for a regression.

    Raises:
        InputError: there is one class only.
    """
    if config.regression:
        return ()
    if config.classes:
        return config.classes
    classes = tuple(sorted({row.label for row in rows}))
    if len(classes) == 1:
        raise InputError(
            f"{where}: has the one class {label_in_message(classes[0])}, expected at least 2"
        )
    return classes


def _check_dropped(config: TaskConfig, rows: Sequence[_OwnRow], where: str) -> None:
    """Raise an InputError for a dropped label that never occurs: it is misspelt."""
    labels = {row.label for row in rows}
    for label in config.drop_labels:
        if label not in labels:
            hint = nearest(label, labels)
            raise InputError(f"{where}: no row has the label {label!r} of drop_labels{hint}")


def _sorted_rows(name: str, config: TaskConfig, file: str) -> list[_OwnRow]:
    """Read the rows of a file that `where` chooses, in the order of their hash."""
    setting_name = f"evaluation.tasks.{name}"
    text_columns = {"text": config.text}
    if config.text_b:
        text_columns["text_b"] = config.text_b
    columns = {*text_columns.values(), config.label, *config.where}
    if config.identity:
        columns.add(config.identity)
    rows = []
    records = 0
    for record in table_rows(locate(file), columns):
        records += 1
        if not _is_chosen(record, config.where, f"{setting_name}.where"):
            continue
        texts = tuple(
            _text(record, column, f"{setting_name}.{part}") for part, column in text_columns.items()
        )
        label = field_text(record, config.label, f"{setting_name}.label")
        # So ends a file that was cut in its last field.
        if not label.strip() and label not in config.drop_labels:
            raise InputError(
                f"{record.where}: {config.label!r} is empty, expected a label; drop_labels with "
                f"{label!r} leaves such rows out"
            )
        # As a corpus's documents have it, so that a task on them is split like them.
        identity = record.key
        if identity is None:
            identity = "\n".join(texts)
        if config.identity:
            identity = field_text(record, config.identity, f"{setting_name}.identity")
        rows.append(_OwnRow(RawRow(record.where, texts, label), label, identity))
    if not records:
        raise InputError(f"task {name}, {file}: has no rows, expected some")
    rows.sort(key=lambda row: split_fraction(row.identity))
    return rows


def _is_chosen(record: Record, where: Mapping[str, str], setting_name: str) -> bool:
    """Return whether a row has the value of each column that `where` names."""
    return all(field_text(record, column, setting_name) == value for column, value in where.items())


def _text(record: Record, column: str, setting_name: str) -> str:
    """Return a field that holds text.

    Raises:
        InputError: it is missing, or no text, or no valid Unicode.
    """
    value = record.fields.get(column)
    if value is not None and not isinstance(value, str):
        raise InputError(
            f"{record.where}: {column!r} is {value!r:.60} ({type(value).__name__}), expected text, "
            f"the column of {setting_name}"
        )
    return field_text(record, column, setting_name)
