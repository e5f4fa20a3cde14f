"""A masking rate that changes over the budget, as a pure function of the sequences seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EqualSteps:
    """Steps of one batch size, one after another.

    Attributes:
        first: sequences seen before its first step.
        batch_size: sequences of a step.
        begin: share of the budget spent before its first step.
        step: share of the budget that a step takes.
    """

    first: int
    batch_size: int
    begin: float
    step: float


@dataclass(frozen=True)
class MaskRate:
    """A masking rate on a line over the budget (Ankner et al. 2023, arXiv 2305.15096).

    All sequences of a step have the rate of the budget's share that is spent before it. So the rate
    follows from how many sequences a run has seen: a run that goes on after a kill, one of several
    hosts and another order of reading all find the same masks.

    Attributes:
        start: share of the tokens that are masked when the budget begins.
        end: share of them when it ends.
        spans: steps of the run, in their order; the first begins at 0 sequences.
    """

    start: float
    end: float
    spans: tuple[EqualSteps, ...]

    def at_fraction(self, budget_fraction: float) -> float:
        """Return the rate of a step, from the share of the budget spent before it."""
        fraction = min(max(budget_fraction, 0.0), 1.0)
        return self.start + (self.end - self.start) * fraction

    def at_sequences(self, seen: np.ndarray) -> np.ndarray:
        """Return the rate of each of some sequences, float64 `[n]`.

        Args:
            seen: `[n]`, number of sequences that the run has seen before each.
        """
        firsts = [span.first for span in self.spans]
        numbers = np.searchsorted(firsts, seen, side="right") - 1
        rates = np.empty(len(seen))
        for row, (number, before) in enumerate(zip(numbers, seen, strict=True)):
            span = self.spans[number]
            steps = (int(before) - span.first) // span.batch_size
            rates[row] = self.at_fraction(span.begin + steps * span.step)
        return rates
