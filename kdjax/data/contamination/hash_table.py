"""A table from hashes to rows that is asked for very many hashes, nearly all of them absent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.data.contamination.hashing import Hashes
from kdjax.data.contamination.words import Indices

FILTER_BITS = 5
"""The filter has more than 2^4 bytes for each hash: fewer than one absent hash in 16 passes it."""


@dataclass(frozen=True)
class HashTable:
    """Hashes and the rows that each belongs to.

    Attributes:
        hashes: distinct hashes, ascending.
        offsets: the rows of hash n are `rows[offsets[n] : offsets[n + 1]]`.
        rows: row numbers.
        is_beginning: bool, whether any hash begins with these bits.
        shift: number of the bits behind those.
    """

    hashes: Hashes
    offsets: Indices
    rows: Indices
    is_beginning: NDArray[np.bool_]
    shift: np.uint64

    @classmethod
    def from_hashes(cls, hashes: Hashes, rows: Indices) -> HashTable:
        """Make a table of hashes `[N]`, each with its row `[N]`."""
        order = np.argsort(hashes, kind="stable")
        distinct, firsts = np.unique(hashes[order], return_index=True)
        bits = max(8, len(distinct).bit_length() - 1 + FILTER_BITS)
        shift = np.uint64(64 - bits)
        is_beginning = np.zeros(2**bits, np.bool_)
        is_beginning[distinct >> shift] = True
        return cls(distinct, np.append(firsts, len(order)), rows[order], is_beginning, shift)

    def may_have(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Return for each hash whether it may be there; it is not where this is false."""
        beginnings = hashes >> self.shift
        return np.take(self.is_beginning, beginnings)

    def rows_of(self, hashes: Hashes) -> Indices:
        """Return the rows of those hashes that are there."""
        # The filter is quick and a search is not: few hashes come to it.
        candidates = hashes[self.may_have(hashes)]
        if not len(candidates):
            return np.zeros(0, np.int64)
        candidates = np.unique(candidates)
        places = np.searchsorted(self.hashes, candidates)
        is_within = places < len(self.hashes)
        candidates = candidates[is_within]
        places = places[is_within]
        places = places[self.hashes[places] == candidates]
        spans = [self.rows[self.offsets[place] : self.offsets[place + 1]] for place in places]
        return np.concatenate([np.zeros(0, np.int64), *spans])
