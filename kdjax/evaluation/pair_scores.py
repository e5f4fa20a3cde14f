"""Accuracy on minimal pairs from scores of sentences, by phenomenon and over phenomena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHANCE = 0.5
"""Accuracy of guessing, and of a tie."""


@dataclass(frozen=True)
class PhenomenonScore:
    """The pairs of one phenomenon.

    Attributes:
        accuracy: share of pairs whose acceptable sentence is the more probable one; a tie is half a
            pair.
        pairs: number of pairs.
        ties: number of pairs whose sentences have the same score.
    """

    accuracy: float
    pairs: int
    ties: int


@dataclass(frozen=True)
class ScoredPairs:
    """A set of pairs under one way to score sentences.

    Attributes:
        accuracy: mean over phenomena, each counted alike however many pairs it has.
        ties: number of pairs whose sentences have the same score.
        phenomena: scores of each phenomenon.
    """

    accuracy: float
    ties: int
    phenomena: dict[str, PhenomenonScore]


def judge(
    good: NDArray[np.float64],
    bad: NDArray[np.float64],
    phenomenon: NDArray[np.integer],
    names: Sequence[str],
) -> ScoredPairs:
    """Compare the scores of P pairs.

    Args:
        good: `[P]` scores of the acceptable sentences.
        bad: `[P]` scores of the others.
        phenomenon: `[P]` index of each pair's phenomenon.
        names: names of the phenomena, each of which has a pair.
    """
    tied = good == bad
    points = np.where(tied, CHANCE, good > bad)
    phenomena = {}
    for index, name in enumerate(names):
        chosen = phenomenon == index
        accuracy = float(points[chosen].mean())
        phenomena[name] = PhenomenonScore(accuracy, int(chosen.sum()), int(tied[chosen].sum()))
    mean = float(np.mean([score.accuracy for score in phenomena.values()]))
    return ScoredPairs(mean, int(tied.sum()), phenomena)
