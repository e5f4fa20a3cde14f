"""Labelled tasks as text, before anything is tokenised: their rows, with splits and places."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdjax.config.suites import ANY_NUMBER
from kdjax.errors import InputError, nearest

SplitName = Literal["train", "dev", "test"]
SHOWN = 40
"""Characters of a label that a message shows."""
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row.

    Attributes:
        where: file and line, key or row, for messages.
        texts: the text, or the two texts of a pair.
        label: name of the class, or a number as text; None where it is hidden.
    """

    where: str
    texts: tuple[str, ...]
    label: str | None


ReadRows = Callable[[Counter[str]], Iterator[RawRow]]
"""Reads rows from their beginning, and adds to the counter those that it leaves out, by reason."""


@dataclass(frozen=True)
class RowSource:
    """The rows of one split.

    Attributes:
        split: name of the split.
        result: name of the result that dev and test rows are for.
        place: file or files it is read from, for messages.
        read: reads the rows.
    """

    split: SplitName
    result: str
    place: str
    read: ReadRows

    def rows(self, left_out: Counter[str] | None = None) -> Iterator[RawRow]:
        """Yield the rows.

        Args:
            left_out: reason -> number of rows that are left out; grows while rows are read.
        """
        return self.read(Counter() if left_out is None else left_out)


@dataclass(frozen=True)
class RawTask:
    """A labelled task as text.

    Attributes:
        name: name of the task in the recipe or the suite.
        classes: names of the classes in the order of their indices; empty for a regression.
        metrics: names of the metrics, of which the score is the mean.
        pairs: whether rows are pairs of texts.
        sources: splits with their rows.
        bounds: smallest and largest number that a label may be; of a regression.
        from_suite: whether it is a suite's, whose dev rows are public and can be reported.
    """

    name: str
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    pairs: bool
    sources: tuple[RowSource, ...]
    bounds: tuple[float, float] = ANY_NUMBER
    from_suite: bool = False

    def of_split(self, split: SplitName) -> tuple[RowSource, ...]:
        """Return the sources of a split: one for each result."""
        return tuple(source for source in self.sources if source.split == split)

    def rows(self) -> Iterator[tuple[RowSource, RawRow]]:
        """Yield all rows with their source, test rows included."""
        for source in self.sources:
            for row in source.rows():
                yield source, row

    def label(self, row: RawRow, source: RowSource) -> float:
        """Return a row's label as a number: the index of its class, or the number that it is.

        Args:
            row: the row.
            source: split of the row.

        Raises:
            InputError: the row has none, or one that the task does not have.
        """
        if row.label is None:
            raise InputError(f"{row.where}: has no label, expected one in a {source.split} split")
        if not self.classes:
            return parse_label(row, row.label, self.bounds)
        if row.label not in self.classes:
            hint = nearest(row.label, self.classes)
            raise InputError(
                f"{row.where}: the label is {label_in_message(row.label)}{hint}, expected one of "
                f"the {len(self.classes)} of {self.name}"
            )
        return self.classes.index(row.label)


def parse_label(row: RawRow, label: str, bounds: tuple[float, float]) -> float:
    """Parse the label of a regression's row.

    Args:
        row: the row.
        label: its label.
        bounds: smallest and largest number that it may be.

    Raises:
        InputError: it is no finite number of 32 bits within the bounds.
    """
    # Python reads "nan", "1_000" and the digits of other scripts as numbers, too.
    value = float(label) if _NUMBER.fullmatch(label) else math.nan
    if not math.isfinite(value) or abs(value) > np.finfo(np.float32).max:
        raise InputError(
            f"{row.where}: the label is {label_in_message(label)}, expected a number of 32 bits"
        )
    low, high = bounds
    if not low <= value <= high:
        raise InputError(
            f"{row.where}: the label is {label_in_message(label)}, expected {low:g} to {high:g}"
        )
    return value


def label_in_message(text: str) -> str:
    """Return a label as a message has it: quoted, and cut where it is long."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
