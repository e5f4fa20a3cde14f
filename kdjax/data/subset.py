"""The limited regime's text: a seeded subset of the training sequences, nested by size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 4096
"""Sequences whose tokens are counted at a time."""


@dataclass(frozen=True, eq=False)
class Subset:
    """Some of a split's sequences, numbered anew.

    Attributes:
        seed: seed of the permutation that they are the start of.
        numbers: `[n]` int64; sequence i of the subset is sequence `numbers[i]` of the split.
        tokens: tokens they hold together, padding not counted.
    """

    seed: int
    numbers: np.ndarray
    tokens: int


def take_sequences(
    sequences: int, unique_tokens: float, seed: int, tokens_of: Callable[[np.ndarray], np.ndarray]
) -> Subset:
    """Take sequences in the seed's order until the next would exceed `unique_tokens` tokens.

    Under one seed a smaller subset is the start of a larger one. Tokens are counted in blocks, and
    only as far as the subset reaches.

    Args:
        sequences: number of sequences of the split.
        unique_tokens: the most tokens that are taken.
        seed: seed of the permutation.
        tokens_of: sequence numbers `[n]` -> the tokens of each, `[n]` int, padding not counted.
    """
    order = permutation(sequences, seed)
    count = 0
    tokens = 0
    for start in range(0, sequences, BLOCK):
        sums = tokens + np.cumsum(tokens_of(order[start : start + BLOCK]))
        fitting = int(np.searchsorted(sums, unique_tokens, side="right"))
        if fitting:
            count = start + fitting
            tokens = int(sums[fitting - 1])
        if fitting < len(sums):
            break
    return Subset(seed, order[:count].copy(), tokens)  # a copy lets go of the rest


def permutation(sequences: int, seed: int) -> np.ndarray:
    """Draw the numbers from 0 to `sequences - 1`, `[sequences]` int64, in a random order.

    The order depends on the arguments alone.
    """
    # Not `Generator.permutation`: NumPy promises the same raw bits in every version, and no more.
    # The key is an array of its own type: a list with a number from 2^63 on would become floats.
    key = np.array([seed % 2**64, sequences], np.uint64)
    bits = np.random.Philox(key=key).random_raw(sequences)
    return np.argsort(bits, kind="stable")
