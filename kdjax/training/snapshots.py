"""Students kept along a run, each at the first step at which it has seen so many words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdjax.budget.ledger import Ledger


@dataclass(frozen=True)
class Snapshots:
    """The numbers of words at which a run's student is kept, and what keeps it.

    Attributes:
        words: numbers of words, ascending.
        words_in: function that returns how many words so many tokens of the run's text are.
        keep: function called with a number of words, the student's parameters on the host and the
            ledger, after the first step at which the run has seen as many. A run that is resumed
            before that step calls it again.
    """

    words: tuple[int, ...]
    words_in: Callable[[int], int]
    keep: Callable[[int, Any, Ledger], None]

    def reached(self, tokens_before: int, tokens: int) -> list[int]:
        """List the numbers of words that a step reached.

        Args:
            tokens_before: tokens seen before the step.
            tokens: tokens seen with it.
        """
        words_before = self.words_in(tokens_before)
        words_now = self.words_in(tokens)
        return [words for words in self.words if words_before < words <= words_now]
