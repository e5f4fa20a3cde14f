"""Hashes of any run of letters, from sums over all of them: no loop over letters or runs.

A run c_i ... c_j-1 has the hash sum of v(c_t) B^(t-i) modulo 2^64 (Karp and Rabin 1987): the
difference of two sums from the beginning, divided by B^i. B is odd, so it has an inverse. v is a
table of random 64-bit numbers.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C13
"""B. It is 3 modulo 8, so that no small power of it is near 1 in its low bits."""
SEED = 0
"""Seed of the letters' numbers. Hashes are stored nowhere."""


class RunHasher:
    """Hashes runs of letters; equal runs have equal hashes, wherever they stand."""

    def __init__(self) -> None:
        """Draw the letters' numbers."""
        rng = np.random.default_rng(SEED)
        self._values = rng.integers(0, 2**64, sys.maxunicode + 1, dtype=np.uint64)
        self._powers = np.ones(1, np.uint64)
        self._inverses = np.ones(1, np.uint64)

    def sums(self, letters: NDArray[np.uint32]) -> Hashes:
        """Return the sums from the beginning, uint64 `[C + 1]`, of letters `[C]`."""
        self._grow(len(letters) + 1)
        terms = self._values[letters]
        terms *= self._powers[: len(letters)]
        sums = np.zeros(len(letters) + 1, np.uint64)
        np.cumsum(terms, out=sums[1:])
        return sums

    def runs(self, sums: Hashes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Hashes:
        """Return the hashes `[N]` of runs of letters.

        Args:
            sums: what `sums` returned for the letters.
            starts: where each run begins, `[N]`.
            ends: where it ends, `[N]`.
        """
        hashes: Hashes = sums[ends] - sums[starts]
        hashes *= self._inverses[starts]
        return hashes

    def _grow(self, count: int) -> None:
        """Have the first `count` powers of the base and of its inverse."""
        if len(self._powers) >= count:
            return
        self._powers = _powers(BASE, count)
        self._inverses = _powers(pow(BASE, -1, 2**64), count)


def _powers(base: int, count: int) -> Hashes:
    """Return the first powers of a number modulo 2^64, from 1 on."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)
