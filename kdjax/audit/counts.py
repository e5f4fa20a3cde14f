"""Tokens counted again from the text."""

from __future__ import annotations

import numpy as np

from kdjax.data.loader import Batches

KINDS = ("tokens", "unique_tokens", "masked_tokens")
"""Tokens seen, seen for the first time, and masked."""


class Counts:
    """Tokens of the first sequences that a seed sees, counted from the text as far as asked."""

    def __init__(self, batches: Batches):
        self._batches = batches
        self._size = len(batches[0]["valid"])
        # An array for each batch: by row, the sums from the very first sequence on.
        self._sums: list[np.ndarray] = []

    def at(self, sequences: int) -> dict[str, int]:
        """Return the tokens of each kind in so many sequences."""
        if not sequences:
            return dict.fromkeys(KINDS, 0)
        number, row = divmod(sequences - 1, self._size)
        # Most of a text may never be asked for; what was counted serves the next question.
        while len(self._sums) <= number:
            self._count_next_batch()
        return dict(zip(KINDS, self._sums[number][row].tolist(), strict=True))

    def _count_next_batch(self) -> None:
        """Add the sums up to each row of the next batch, a column for each of `KINDS`."""
        batch = self._batches[len(self._sums)]
        before = len(self._sums) * self._size
        tokens = batch["valid"].sum(axis=1)
        masked = (batch["label_weights"] > 0).sum(axis=1)
        # All text comes before repeats.
        is_new = np.arange(before, before + self._size) < self._batches.sequences
        sums = np.cumsum([tokens, tokens * is_new, masked], axis=1).T
        if self._sums:
            sums = sums + self._sums[-1][-1]
        self._sums.append(sums)
