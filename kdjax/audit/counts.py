"""Tokens counted again from the text."""

from __future__ import annotations

import numpy as np

from kdjax.data.loader import Batches


class Counts:
    """Tokens of the first sequences that a seed sees, counted from the text as far as asked."""

    def __init__(self, batches: Batches):
        self._batches = batches
        self._size = len(batches[0]["valid"])
        # A batch each: by row, the sums from the very first sequence on
        self._sums: list[np.ndarray] = []

    def at(self, sequences: int) -> dict[str, int]:
        """Tokens seen, seen for the first time, and masked in so many sequences."""
        number, row = divmod(max(0, sequences - 1), self._size)
        while len(self._sums) <= number:
            batch = self._batches[len(self._sums)]
            before = len(self._sums) * self._size
            tokens = batch["valid"].sum(axis=1)
            # All text comes before repeats
            fresh = np.arange(before, before + self._size) < self._batches.sequences
            here = np.cumsum(
                [tokens, tokens * fresh, (batch["label_weights"] > 0).sum(axis=1)], axis=1
            ).T
            self._sums.append(here + (self._sums[-1][-1] if self._sums else 0))
        found = self._sums[number][row] if sequences else np.zeros(3, int)
        return dict(zip(("tokens", "unique_tokens", "masked_tokens"), found.tolist(), strict=True))
