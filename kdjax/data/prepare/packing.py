"""Documents into fixed-length sequences, and sequences into records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

AT_ONCE = 1024
"""Sequences that are encoded together."""


def chunks(ids: np.ndarray, room: int) -> list[np.ndarray]:
    """A document's tokens in consecutive pieces of at most `room` tokens."""
    return [ids[start : start + room] for start in range(0, len(ids), room)]


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs items into bins: the longest first, each into the fullest bin that has room (best fit
    decreasing).

    Args:
        sizes: of the items, each 1 to `capacity`.
        capacity: of a bin.

    Returns:
        The bins, each the indices of its items. Every index occurs once.
    """
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room left -> bins
    occupied = 0  # bit r is set when some bin has r left
    for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[item]
        enough = occupied >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            chosen = with_room[room].pop()
            if not with_room[room]:
                occupied ^= 1 << room
        else:
            room = capacity
            chosen = len(bins)
            bins.append([])
        bins[chosen].append(item)
        left = room - size
        if left:
            with_room[left].append(chosen)
            occupied |= 1 << left
    return bins


def positions(segments: np.ndarray) -> np.ndarray:
    """Position of each token in its segment; a segment is a run of equal numbers.

    Args:
        segments: `[B, L]` int32.

    Returns:
        `[B, L]` int32, 0 at each segment's first token.
    """
    place = np.arange(segments.shape[1], dtype=np.int32)
    begins = np.diff(segments, axis=1, prepend=-1) != 0
    return place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)


@dataclass(frozen=True)
class RecordFormat:
    """A sequence as a byte string of fixed size: token ids, then segment numbers, both
    little-endian.

    Attributes:
        length: tokens of a sequence.
        token_dtype: `<u2` or `<u4`.
        segment_dtype: `u1` or `<u2`.
    """

    length: int
    token_dtype: str
    segment_dtype: str

    @classmethod
    def smallest(cls, length: int, vocab_size: int) -> RecordFormat:
        """The narrowest format that holds every sequence; a segment has [CLS], a token and [SEP] at
        least."""
        return cls(
            length, "<u2" if vocab_size <= 2**16 else "<u4", "u1" if length // 3 < 2**8 else "<u2"
        )

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return self.length * (
            np.dtype(self.token_dtype).itemsize + np.dtype(self.segment_dtype).itemsize
        )

    def encode(
        self, sequences: Sequence[Sequence[np.ndarray]], *, cls: int, sep: int, pad: int
    ) -> Iterator[bytes]:
        """Sequences, each of pieces framed by [CLS] and [SEP] and numbered from 1; padding is
        segment 0."""
        for first in range(0, len(sequences), AT_ONCE):
            yield from self._encode(sequences[first : first + AT_ONCE], cls, sep, pad)

    def decode(self, records: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and segment numbers of records, each `[len(records), length]` int32."""
        split = self.length * np.dtype(self.token_dtype).itemsize
        raw = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), self.size)
        tokens = np.ascontiguousarray(raw[:, :split]).view(self.token_dtype)
        segments = np.ascontiguousarray(raw[:, split:]).view(self.segment_dtype)
        return tokens.astype(np.int32), segments.astype(np.int32)

    def _encode(
        self, sequences: Sequence[Sequence[np.ndarray]], cls: int, sep: int, pad: int
    ) -> list[bytes]:
        pieces = [piece for sequence in sequences for piece in sequence]
        sizes = np.array([len(piece) + 2 for piece in pieces])
        counts = np.array([len(sequence) for sequence in sequences])
        first = np.repeat(np.cumsum(counts) - counts, counts)  # of a piece's sequence
        began = np.cumsum(sizes) - sizes  # if there were no padding
        start = np.repeat(np.arange(len(sequences)), counts) * self.length + began - began[first]
        place = np.repeat(start - began, sizes) + np.arange(sizes.sum())
        inside = np.ones(len(place), bool)
        inside[began] = inside[began + sizes - 1] = False
        tokens = np.full((len(sequences), self.length), pad, self.token_dtype)
        tokens.flat[place[inside]] = np.concatenate(pieces)
        tokens.flat[start], tokens.flat[start + sizes - 1] = cls, sep
        segments = np.zeros((len(sequences), self.length), self.segment_dtype)
        segments.flat[place] = np.repeat(np.arange(len(pieces)) - first + 1, sizes)
        whole = np.concatenate([tokens.view(np.uint8), segments.view(np.uint8)], axis=1)
        return [record.tobytes() for record in whole]
