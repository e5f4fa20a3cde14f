"""Documents into fixed-length sequences, and sequences into records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")

AT_ONCE = 1024
"""Sequences that are encoded together."""


def chunks(ids: np.ndarray, room: int) -> list[np.ndarray]:
    """Cut a document's tokens into consecutive pieces of at most `room` tokens."""
    return [ids[start : start + room] for start in range(0, len(ids), room)]


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into bins by best fit decreasing: longest first, into the fullest with room.

    Args:
        sizes: sizes of the items, each 1 to `capacity`.
        capacity: size of a bin.

    Returns:
        The bins, each the indices of its items. Every index occurs once.
    """
    bins: list[list[int]] = []
    # Bins by the room in them; bit r of `rooms` is set when some bin has room r.
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[item]
        # The lowest bit that is set is the least room that is enough.
        enough = rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            number = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room = capacity
            number = len(bins)
            bins.append([])
        bins[number].append(item)
        room -= size
        if room:
            by_room[room].append(number)
            rooms |= 1 << room
    return bins


def items_of_bins(items: Sequence[T], bins: Sequence[Sequence[int]]) -> list[list[T]]:
    """Return the items of each bin of `best_fit`, which gives their indices."""
    contents = []
    for indices in bins:
        contents.append([items[index] for index in indices])
    return contents


def position_ids(segments: np.ndarray) -> np.ndarray:
    """Compute each token's place in its segment, from 0; a segment is a run of equal numbers.

    Args:
        segments: `[B, L]` int32.

    Returns:
        `[B, L]` int32.
    """
    columns = np.arange(segments.shape[1], dtype=np.int32)
    begins = np.diff(segments, axis=1, prepend=-1) != 0
    return columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)


@dataclass(frozen=True)
class RecordFormat:
    """A sequence as bytes of fixed size: token ids, then segment numbers, little-endian.

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
        """Return the narrowest format that holds every sequence."""
        token_dtype = "<u2" if vocab_size <= 2**16 else "<u4"
        # A segment has [CLS], a token and [SEP] at least.
        segment_dtype = "u1" if length // 3 < 2**8 else "<u2"
        return cls(length, token_dtype, segment_dtype)

    @property
    def size(self) -> int:
        """Compute the bytes of a record."""
        token_bytes = np.dtype(self.token_dtype).itemsize
        return self.length * (token_bytes + np.dtype(self.segment_dtype).itemsize)

    def encode(
        self, sequences: Sequence[Sequence[np.ndarray]], *, start: int, end: int, pad: int
    ) -> Iterator[bytes]:
        """Encode sequences of pieces: each piece is framed by [CLS] and [SEP], and is a segment.

        Args:
            sequences: the pieces of each sequence, as token ids.
            start: id of the token that begins a piece, [CLS].
            end: id of the one that ends it, [SEP].
            pad: id of [PAD]; padding is segment 0, the others are numbered from 1.
        """
        for first in range(0, len(sequences), AT_ONCE):
            yield from self._encode(sequences[first : first + AT_ONCE], start, end, pad)

    def decode(self, records: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Decode records to token ids and segment numbers, each `[len(records), length]` int32."""
        token_bytes = self.length * np.dtype(self.token_dtype).itemsize
        raw = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), self.size)
        tokens = np.ascontiguousarray(raw[:, :token_bytes]).view(self.token_dtype)
        segments = np.ascontiguousarray(raw[:, token_bytes:]).view(self.segment_dtype)
        return tokens.astype(np.int32), segments.astype(np.int32)

    def _encode(
        self, sequences: Sequence[Sequence[np.ndarray]], start: int, end: int, pad: int
    ) -> list[bytes]:
        """Encode some sequences together, without a loop over their tokens."""
        pieces = list(itertools.chain.from_iterable(sequences))
        sizes = np.array([len(piece) + 2 for piece in pieces])
        counts = np.array([len(sequence) for sequence in sequences])

        # The sequence of each piece, and the first piece of that sequence.
        sequence_of = np.repeat(np.arange(len(sequences)), counts)
        first_of = np.repeat(np.cumsum(counts) - counts, counts)

        # Where a piece begins, were all pieces laid end to end, and where in the padded sequences.
        begin = np.cumsum(sizes) - sizes
        begin_in_row = sequence_of * self.length + begin - begin[first_of]

        # Where each token of the pieces lies in the padded sequences; the frame's are no text.
        place = np.repeat(begin_in_row - begin, sizes) + np.arange(sizes.sum())
        is_text = np.ones(len(place), bool)
        is_text[begin] = False
        is_text[begin + sizes - 1] = False

        tokens = np.full((len(sequences), self.length), pad, self.token_dtype)
        tokens.flat[place[is_text]] = np.concatenate(pieces)
        tokens.flat[begin_in_row] = start
        tokens.flat[begin_in_row + sizes - 1] = end
        segments = np.zeros((len(sequences), self.length), self.segment_dtype)
        segments.flat[place] = np.repeat(np.arange(len(pieces)) - first_of + 1, sizes)
        records = np.concatenate([tokens.view(np.uint8), segments.view(np.uint8)], axis=1)
        return [record.tobytes() for record in records]
