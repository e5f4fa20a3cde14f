"""Pieces into sequences, sequences into records and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data.prepare import packing
from kdjax.data.prepare.packing import RecordFormat, best_fit, chunks, position_ids

CAPACITY = 20
SIZES = st.lists(st.integers(1, CAPACITY), max_size=60)


def loads_of(bins: list[list[int]], sizes: list[int]) -> list[int]:
    """Return what the items of each bin take together."""
    return [int(np.take(sizes, items).sum()) for items in bins]


@given(SIZES)
def test_every_item_is_in_one_bin_and_no_bin_overflows(sizes: list[int]) -> None:
    bins = best_fit(sizes, CAPACITY)
    assert sorted(itertools.chain.from_iterable(bins)) == list(range(len(sizes)))
    assert all(0 < load <= CAPACITY for load in loads_of(bins, sizes))


@given(SIZES)
def test_no_two_bins_could_have_been_one(sizes: list[int]) -> None:
    loads = sorted(loads_of(best_fit(sizes, CAPACITY), sizes))
    assert len(loads) < 2 or loads[0] + loads[1] > CAPACITY


def test_item_goes_where_it_fits_best() -> None:
    # 14 and 11 open a bin each; 6 fits both and fills the first exactly; 5 and 4 fill the second
    # exactly.
    assert best_fit([4, 14, 6, 11, 5], 20) == [[1, 2], [3, 4, 0]]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 7))
def test_chunks_are_the_document_in_order(ids: list[int], room: int) -> None:
    pieces = chunks(ids, room)
    assert list(itertools.chain.from_iterable(pieces)) == ids
    assert all(1 <= len(piece) <= room for piece in pieces)
    assert all(len(piece) == room for piece in pieces[:-1])


@pytest.mark.parametrize("vocab_size", [50, 2**16, 2**16 + 1])
def test_record_is_read_as_it_was_written(vocab_size: int) -> None:
    record_format = RecordFormat.smallest(12, vocab_size)
    # The largest id needs the widest type.
    top = vocab_size - 1
    records = list(
        record_format.encode(
            [[np.array([top, 7]), np.array([8])], [np.array([5] * 10)]], start=1, end=2, pad=0
        )
    )
    assert {len(record) for record in records} == {record_format.size}
    tokens, segments = record_format.decode(records)
    assert tokens.tolist() == [[1, top, 7, 2, 1, 8, 2, 0, 0, 0, 0, 0], [1, *[5] * 10, 2]]
    assert segments.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0], [1] * 12]
    assert tokens.dtype == segments.dtype == np.int32


def test_records_do_not_depend_on_what_is_encoded_with_them() -> None:
    record_format = RecordFormat.smallest(12, 50)
    # More sequences than are encoded at once.
    sizes = np.random.default_rng(0).integers(1, 5, 3000)
    pieces = [np.arange(5, 5 + size, dtype=np.uint16) for size in sizes]
    sequences = [pieces[n : n + 2] for n in range(0, len(pieces), 2)]
    together = list(record_format.encode(sequences, start=1, end=2, pad=0))
    alone: list[bytes] = []
    for sequence in sequences:
        alone += record_format.encode([sequence], start=1, end=2, pad=0)
    assert len(sequences) > packing.AT_ONCE
    assert together == alone


@pytest.mark.parametrize(("length", "dtype"), [(767, "u1"), (768, "<u2")])
def test_segment_numbers_fit_however_short_the_documents(length: int, dtype: str) -> None:
    record_format = RecordFormat.smallest(length, 50)
    assert record_format.segment_dtype == dtype
    # As many segments as a sequence can have: [CLS], a token and [SEP] each.
    most = length // 3
    _, segments = record_format.decode(
        list(record_format.encode([[np.array([9])] * most], start=1, end=2, pad=0))
    )
    assert segments.max() == most


def test_position_ids_restart_in_each_segment() -> None:
    segments = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 0, 0, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    ids = position_ids(segments)
    assert ids.tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    assert ids.dtype == np.int32
