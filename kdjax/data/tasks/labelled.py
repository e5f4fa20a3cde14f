"""Labelled tasks: a file each, split by the hash of every row's identity."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdjax.config import TaskConfig
from kdjax.data.prepare.packing import position_ids
from kdjax.data.text.records import Record, records
from kdjax.data.text.sources import locate, split_fraction
from kdjax.data.text.streams import (
    LINE_BYTES,
    check_characters,
    check_readable,
    kind,
    lines,
    read_text,
)
from kdjax.data.text_figures import check_unknown
from kdjax.data.tokenizer import TextTokenizer
from kdjax.errors import InputError, nearest

SHOWN = 40
"""Characters of a label that a message shows."""


@dataclass(frozen=True)
class Split:
    """The N rows of one split.

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
        name: name of the task in the recipe.
        classes: names of the classes in the order of their indices; empty for a regression.
        train, dev, test: the splits, each in an order that says nothing of the label.
        unknown: share of [UNK] among the tokens of the rows' texts.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    dev: Split
    test: Split
    unknown: float = 0.0

    @property
    def regression(self) -> bool:
        """Return whether the labels are numbers."""
        return not self.classes

    @property
    def outputs(self) -> int:
        """Return the number of outputs that a head needs: one per class, or one number."""
        return max(1, len(self.classes))

    @property
    def baseline(self) -> float:
        """Score guessing without the text, on the test rows.

        That is the accuracy of the most frequent training class; Pearson's r 0 for numbers.
        """
        if self.regression:
            return 0.0
        frequent = np.bincount(self.train.labels, minlength=len(self.classes)).argmax()
        return float(np.mean(self.test.labels == frequent))


@dataclass(frozen=True)
class _Row:
    """A row that is used, as text; `where` is its line, for messages."""

    where: str
    text: str
    label: str
    identity: str


def load(name: str, config: TaskConfig, tokenizer: Path, length: int) -> Task:
    """Read a task; split it by `split_fraction` at `test` and `test + dev`, the rest is train.

    Within a split, rows are in the order of their hash. Text beyond `length` tokens, [CLS] and
    [SEP] included, is cut.

    Args:
        name: name of the task.
        config: file and columns of the task.
        tokenizer: path of a tokenizer.json.
        length: tokens of a row.

    Raises:
        InputError: a missing file or column, a label that is no number, fewer than 2 classes, an
            empty split, or texts that are mostly [UNK].
    """
    where = f"task {name}, {config.file}"
    rows = _selected(name, config, where)

    # In the order of the hashes, the splits follow one another.
    rows.sort(key=lambda row: split_fraction(row.identity))
    fractions = [split_fraction(row.identity) for row in rows]
    bounds = np.searchsorted(fractions, [0.0, config.test, config.test + config.dev, 1.0])

    classes: tuple[str, ...] = ()
    labels: np.ndarray
    if config.regression:
        labels = np.array([_number(row) for row in rows], np.float32)
    else:
        classes = tuple(sorted({row.label for row in rows}))
        labels = np.array([classes.index(row.label) for row in rows], np.int32)
    if len(classes) == 1:
        raise InputError(f"{where}: has the one class {classes[0]!r}, expected at least 2")
    reader = TextTokenizer.read(tokenizer)
    batch = _arrays([row.text for row in rows], reader, length)
    unknown = _unknown(batch["tokens"], reader)
    splits = {}
    for number, split in enumerate(("test", "dev", "train")):
        part = slice(bounds[number], bounds[number + 1])
        if part.start >= part.stop:
            raise InputError(
                f"{where}: {len(rows)} rows leave the {split} split empty, expected a row in each "
                "split"
            )
        arrays = {name: values[part] for name, values in batch.items()}
        splits[split] = Split(arrays, labels[part])
    check_unknown({"all": unknown}, where)
    return Task(name, classes, unknown=unknown, **splits)


def split_texts(name: str, config: TaskConfig) -> dict[str, list[tuple[str, str]]]:
    """Read a task as text: split -> place and text of each row, in the order of the file.

    Args:
        name: name of the task.
        config: file and columns of the task.

    Raises:
        InputError: as `load`.
    """
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "dev": [], "test": []}
    for row in _selected(name, config, f"task {name}, {config.file}"):
        fraction = split_fraction(row.identity)
        split = "train"
        if fraction < config.test:
            split = "test"
        elif fraction < config.test + config.dev:
            split = "dev"
        splits[split].append((row.where, row.text))
    return splits


def _selected(name: str, config: TaskConfig, where: str) -> list[_Row]:
    """Read the rows that the config asks for.

    Raises:
        InputError: no row is left, or a label that is dropped does not occur.
    """
    rows = []
    dropped = set()
    setting = f"evaluation.tasks.{name}"
    for record in _records(locate(config.file)):
        if any(
            _field(record, column, f"{setting}.where") != value
            for column, value in config.where.items()
        ):
            continue
        text = _field(record, config.text, f"{setting}.text")
        # Dropped labels are noted: one that never occurs is misspelt.
        label = _field(record, config.label, f"{setting}.label")
        if label in config.drop_labels:
            dropped.add(label)
            continue
        # As a corpus's documents have it, so that a task on them is split like them.
        identity = text if record.key is None else record.key
        if config.identity:
            identity = _field(record, config.identity, f"{setting}.identity")
        rows.append(_Row(record.where, text, label, identity))
    if not rows:
        raise InputError(
            f"{where}: no row is left by where {config.where} and drop_labels, expected some"
        )
    for label in config.drop_labels:
        if label not in dropped:
            hint = nearest(label, {row.label for row in rows})
            raise InputError(f"{where}: no row has the label {label!r} of drop_labels{hint}")
    return rows


def _records(path: Path) -> Iterator[Record]:
    """Read the records of a file of any kind."""
    suffix = kind(path)
    check_readable(path)
    if suffix in (".jsonl", ".json"):
        return records(path)
    if suffix == ".csv":
        return _table(path, _csv_rows(path))
    if suffix == ".tsv":
        return _table(path, _tsv_rows(path))
    raise InputError(
        f"{path}: expected a .csv, .tsv, .jsonl or .json file, as it is, .gz, .bz2, .xz or .zst"
    )


def _table(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    """Yield the rows of a table as records, by the names in its first row."""
    _, header = next(rows, (1, []))
    for number, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: has {len(row)} columns, expected the header's "
                f"{len(header)}"
            )
        yield Record(f"{path}, line {number}", None, dict(zip(header, row, strict=True)))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a .csv file with the lines they end at."""
    # Python's limit is for programs that read what they do not trust; it holds for all readers of
    # the process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as e:
        if "field limit" in str(e):
            raise InputError(
                f"{path}, line {reader.line_num}: a field is longer than "
                f"{csv.field_size_limit():,} characters, the most that are read, expected shorter "
                "fields"
            ) from None
        raise InputError(f"{path}, line {reader.line_num}: malformed CSV, {e}") from None


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a .tsv file with their lines; quotation marks are text, as in GLUE."""
    return ((number, line.split("\t")) for number, line in lines(path) if line)


def _field(record: Record, column: str, setting: str) -> str:
    """Return a field as text.

    Args:
        record: row of the file.
        column: name of the field.
        setting: dotted name of the setting that chose the column, for messages.

    Raises:
        InputError: it is missing, or no valid Unicode.
    """
    value = record.fields.get(column)
    # Null and absent are two mistakes.
    if value is None and column in record.fields:
        raise InputError(f"{record.where}: {column!r} is null, expected a value")
    if value is None:
        hint = nearest(column, record.fields)
        raise InputError(f"{record.where}: has no {column!r}{hint}, the column of {setting}")
    text = str(value)
    check_characters(text, record.where)
    return text


def _number(row: _Row) -> float:
    """Return the label of a regression's row.

    Raises:
        InputError: it is no finite number.
    """
    # Python reads "nan" and "inf" as numbers, too.
    try:
        value = float(row.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > np.finfo(np.float32).max:
        label = row.label if len(row.label) <= SHOWN else f"{row.label[:SHOWN]}…"
        raise InputError(f"{row.where}: the label is {label!r}, expected a number of 32 bits")
    return value


def _unknown(tokens: np.ndarray, tokenizer: TextTokenizer) -> float:
    """Return the share of [UNK] among tokens, frames and padding aside; 0 where there are none."""
    frame = [tokenizer.named[name] for name in ("[CLS]", "[SEP]", "[PAD]")]
    count = int((~np.isin(tokens, frame)).sum())
    return int((tokens == tokenizer.named["[UNK]"]).sum()) / max(1, count)


def _arrays(texts: Sequence[str], tokenizer: TextTokenizer, length: int) -> dict[str, np.ndarray]:
    """Tokenise texts, framed by [CLS] and [SEP], cut and padded to a length."""
    tokens = np.full((len(texts), length), tokenizer.named["[PAD]"], np.int32)
    segments = np.zeros((len(texts), length), np.int32)
    for row, ids in enumerate(tokenizer.ids(texts)):
        framed = [tokenizer.named["[CLS]"], *ids[: length - 2], tokenizer.named["[SEP]"]]
        tokens[row, : len(framed)] = framed
        segments[row, : len(framed)] = 1
    return {
        "tokens": tokens,
        "segments": segments,
        "positions": position_ids(segments),
        "valid": segments > 0,
    }
