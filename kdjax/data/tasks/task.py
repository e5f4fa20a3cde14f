"""A labelled task in memory: its rows as token ids, split by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

COPIED_ROWS = 2048
"""Rows that are copied at a time: the places of their tokens take more memory than the tokens."""


@dataclass(frozen=True)
class Split:
    """The N rows of one split: token ids one row after another, so that no padding is stored.

    Attributes:
        tokens: int32 `[T]`, the ids of all rows, framed by the model's special tokens.
        offsets: int64 `[N + 1]`: row n is `tokens[offsets[n] : offsets[n + 1]]`.
        second: int32 `[N]`: where in a row its second text begins, which has token type 1; None:
            every row is one text.
        labels: `[N]`: int32 index of the class, or float32 number; None where they are hidden.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    second: NDArray[np.int32] | None
    labels: NDArray[np.int32] | NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each row, `[N]`."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.intp]) -> Split:
        """Return some of the rows, in the order given.

        Args:
            rows: `[M]`: numbers of rows.
        """
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens = np.empty(offsets[-1], np.int32)
        for first in range(0, len(rows), COPIED_ROWS):
            part = slice(first, first + COPIED_ROWS)
            begin = offsets[first]
            end = offsets[min(first + COPIED_ROWS, len(rows))]
            # Each place is as far behind its row's begin as the one it comes from.
            shifts = self.offsets[:-1][rows[part]] - offsets[:-1][part]
            places = np.arange(begin, end) + np.repeat(shifts, lengths[part])
            tokens[begin:end] = self.tokens[places]
        second = self.second
        if second is not None:
            second = second[rows]
        labels = self.labels
        if labels is not None:
            labels = labels[rows]
        return Split(tokens, offsets, second, labels)

    def batch(self, rows: NDArray[np.intp], length: int) -> dict[str, NDArray[np.generic]]:
        """Return rows as arrays of a batch, padded.

        Args:
            rows: numbers of B rows; -1 gives an empty row, which is all padding.
            length: tokens of the arrays' rows, L; at least those of the longest row.

        Returns:
            `tokens`, `segments`, `positions` int32 `[B, L]` and `valid` bool `[B, L]`; where rows
            are pairs, `types` int32 `[B, L]`.
        """
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (len(rows), length))
        row_lengths = np.where(rows < 0, 0, self.lengths[rows])
        valid = positions < row_lengths[:, None]
        # Where a row has ended, the first token of all stands in for padding, and is not read.
        places = np.where(valid, self.offsets[rows][:, None] + positions, 0)
        batch: dict[str, NDArray[np.generic]] = {
            "tokens": np.where(valid, self.tokens[places], 0).astype(np.int32),
            "segments": valid.astype(np.int32),
            "positions": np.where(valid, positions, 0).astype(np.int32),
            "valid": valid,
        }
        if self.second is not None:
            in_second = positions >= self.second[rows][:, None]
            batch["types"] = (valid & in_second).astype(np.int32)
        return batch


@dataclass(frozen=True)
class Task:
    """A labelled task.

    Attributes:
        name: name of the task in the recipe or the suite.
        classes: names of the classes in the order of their indices; empty for a regression.
        metrics: names of the metrics (`kdjax.evaluation.metric`); the score is their mean, as in
            GLUE.
        train: rows to train on.
        selection: labelled rows by which settings are chosen.
        reported: name of a result -> labelled rows it is measured on. Most tasks have one result,
            by their own name; MNLI has `mnli` (matched) and `mnli-mm` (mismatched).
        unlabelled: name of a result -> rows of a test set whose labels are hidden.
        unknown: share of [UNK] among the tokens of the rows' texts.
        left_out: reason -> rows of the files that are left out, such as those that lack columns.
    """

    name: str
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    train: Split
    selection: Split
    reported: Mapping[str, Split]
    unlabelled: Mapping[str, Split] = field(default_factory=dict)
    unknown: float = 0.0
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def regression(self) -> bool:
        """Return whether the labels are numbers."""
        return not self.classes

    @property
    def outputs(self) -> int:
        """Return the number of outputs that a head needs: one per class, or one number."""
        return max(1, len(self.classes))
