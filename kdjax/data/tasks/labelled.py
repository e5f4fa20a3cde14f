"""Labelled tasks: one file each, split by the hash of every row's identity."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.config import TaskConfig
from kdjax.data.prepare.packing import positions
from kdjax.data.text import sources
from kdjax.data.tokenizer import TextTokenizer
from kdjax.errors import InputError, nearest


@dataclass(frozen=True)
class Split:
    """Rows of one split; N rows, L length.

    Attributes:
        batch: `tokens`, `segments`, `positions` `[N, L]` int32 and `valid` `[N, L]` bool.
        labels: `[N]`: int32 index of the class, or float32 number.
    """

    batch: dict[str, np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """A labelled task.

    Attributes:
        name: of the task.
        classes: names of the classes in the order of their indices; empty for a regression.
        train, dev, test: the splits, each in an order that says nothing of the label.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    dev: Split
    test: Split

    @property
    def regression(self) -> bool:
        """Whether the labels are numbers."""
        return not self.classes

    @property
    def outputs(self) -> int:
        """Outputs a head needs: one per class, or one number."""
        return max(1, len(self.classes))

    @property
    def baseline(self) -> float:
        """Test score without the text: the accuracy of the most frequent training class; Pearson's
        r 0 for numbers."""
        if self.regression:
            return 0.0
        frequent = np.bincount(self.train.labels, minlength=len(self.classes)).argmax()
        return float(np.mean(self.test.labels == frequent))


@dataclass(frozen=True)
class _Row:
    where: str
    text: str
    label: str
    identity: str


def load(name: str, config: TaskConfig, tokenizer: Path, length: int) -> Task:
    """Reads a task and splits it by `sources.split_fraction`: test below `test`, dev below `test +
    dev`, else train.

    Within a split, rows are in the order of their hash. Text beyond `length` tokens, [CLS] and
    [SEP] included, is cut.

    Args:
        name: of the task.
        config: its file and columns.
        tokenizer: a tokenizer.json.
        length: tokens of a row.

    Raises:
        InputError: a missing file or column, a label that is no number, fewer than 2 classes, an
            empty split.
    """
    where = f"task {name}, {config.file}"
    rows = _selected(config, where)
    classes = () if config.regression else tuple(sorted({row.label for row in rows}))
    if len(classes) == 1:
        raise InputError(f"{where}: has the one class {classes[0]!r}, expected at least 2")
    fractions = np.array([sources.split_fraction(row.identity) for row in rows])
    order = np.argsort(fractions, kind="stable")
    ordered = [rows[n] for n in order]
    labels = _numbers(ordered) if config.regression else _indices(ordered, classes)
    batch = _arrays([row.text for row in ordered], TextTokenizer.read(tokenizer), length)
    first_dev, first_train = np.searchsorted(
        fractions[order], [config.test, config.test + config.dev]
    )
    splits = {}
    for split, start, stop in (
        ("test", 0, first_dev),
        ("dev", first_dev, first_train),
        ("train", first_train, len(rows)),
    ):
        if start >= stop:
            raise InputError(
                f"{where}: {len(rows)} rows leave the {split} split empty, expected a row in each "
                "split"
            )
        splits[split] = Split(
            {name: values[start:stop] for name, values in batch.items()}, labels[start:stop]
        )
    return Task(name, classes, **splits)


def _selected(config: TaskConfig, where: str) -> list[_Row]:
    """The rows the config asks for; every label that is dropped must occur."""
    rows = []
    dropped = set()
    for record in _records(sources.locate(config.file)):
        if any(_field(record, column) != value for column, value in config.where.items()):
            continue
        text = _field(record, config.text)
        label = _field(record, config.label)
        if label in config.drop_labels:
            dropped.add(label)
            continue
        identity = (
            _field(record, config.identity)
            if config.identity
            else text
            if record.key is None
            else record.key
        )
        rows.append(_Row(record.where, text, label, identity))
    if not rows:
        raise InputError(
            f"{where}: no row is left by where {config.where} and drop_labels, expected some"
        )
    for label in config.drop_labels:
        if label not in dropped:
            raise InputError(
                f"{where}: no row has the label {label!r} of "
                f"drop_labels{nearest(label, {r.label for r in rows})}"
            )
    return rows


def _records(path: Path) -> Iterator[sources.Record]:
    if path.suffix in (".jsonl", ".json"):
        yield from sources.records(path)
    elif path.suffix in (".csv", ".tsv"):
        yield from _table(path, _csv_rows(path) if path.suffix == ".csv" else _tsv_rows(path))
    else:
        raise InputError(f"{path}: expected a .csv, .tsv, .jsonl or .json file")


def _table(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[sources.Record]:
    _, header = next(rows, (1, []))
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: has {len(row)} columns, expected the header's "
                f"{len(header)}"
            )
        yield sources.Record(f"{path}, line {number}", None, dict(zip(header, row, strict=True)))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(sources.read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as e:
        raise InputError(f"{path}, line {reader.line_num}: malformed CSV, {e}") from None


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Quotation marks are text, as in GLUE's files."""
    return ((number, line.split("\t")) for number, line in sources.lines(path) if line)


def _field(record: sources.Record, column: str) -> str:
    value = record.fields.get(column)
    if value is None:
        raise InputError(f"{record.where}: has no {column!r}{nearest(column, record.fields)}")
    text = str(value)
    sources.check_characters(text, record.where)
    return text


def _numbers(rows: Sequence[_Row]) -> np.ndarray:
    return np.array([_number(row) for row in rows], np.float32)


def _number(row: _Row) -> float:
    try:
        value = float(row.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{row.where}: the label is {row.label!r}, expected a number")
    return value


def _indices(rows: Sequence[_Row], classes: Sequence[str]) -> np.ndarray:
    index = {name: n for n, name in enumerate(classes)}
    return np.array([index[row.label] for row in rows], np.int32)


def _arrays(texts: Sequence[str], tokenizer: TextTokenizer, length: int) -> dict[str, np.ndarray]:
    tokens = np.full((len(texts), length), tokenizer.named["[PAD]"], np.int32)
    segments = np.zeros((len(texts), length), np.int32)
    for n, ids in enumerate(tokenizer.ids(texts)):
        framed: list[Any] = [tokenizer.named["[CLS]"], *ids[: length - 2], tokenizer.named["[SEP]"]]
        tokens[n, : len(framed)] = framed
        segments[n, : len(framed)] = 1
    return {
        "tokens": tokens,
        "segments": segments,
        "positions": positions(segments),
        "valid": segments > 0,
    }
