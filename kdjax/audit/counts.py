"""Tokens counted again from the text."""

from __future__ import annotations

from kdjax.data.loader import Batches


class Counts:
    """Tokens that the first steps of a seed see, counted from the text as far as asked."""

    def __init__(self, batches: Batches):
        self._batches = batches
        self._sums = [(0, 0, 0)]

    def at(self, steps: int) -> dict[str, int]:
        """Tokens seen, seen for the first time, and masked in so many steps."""
        for step in range(len(self._sums) - 1, steps):
            batch = self._batches[step]
            held = batch["valid"].sum(axis=1)
            fresh = max(0, self._batches.sequences - step * len(held))  # text repeats only after all of it was seen
            more = held.sum(), held[:fresh].sum(), (batch["label_weights"] > 0).sum()
            seen, unique, masked = (int(a + b) for a, b in zip(self._sums[-1], more, strict=True))
            self._sums.append((seen, unique, masked))
        return dict(zip(("tokens", "unique_tokens", "masked_tokens"), self._sums[steps], strict=True))
