"""Held-out sequences for two purposes: evenly spaced ones for each, and none for both."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data.corpus import Corpus
from kdjax.data.loader import evenly_spaced, fixed_batches
from tests.data.batches import MASKS, all_originals


def numbers_in(corpus: Corpus, limit: int, excluding: int) -> list[int]:
    """Return the numbers of the sequences in an evaluation."""
    tokens, _ = corpus.read("validation", np.arange(corpus.sequences("validation")))
    rows = [row.tobytes() for row in tokens]
    batches = fixed_batches(
        corpus,
        "validation",
        batch_size=5,
        limit=limit,
        seed=1,
        excluding=excluding,
        mask_settings=MASKS,
    )
    return [rows.index(row) for row in all_originals(batches)]


@given(available=st.integers(0, 300), limit=st.integers(1, 300), excluding=st.integers(1, 300))
def test_two_evaluations_share_no_sequence(available: int, limit: int, excluding: int) -> None:
    first = evenly_spaced(available, excluding)
    others = evenly_spaced(available, limit, excluding)
    assert not set(first) & set(others)
    for chosen in (first, others):
        assert list(chosen) == sorted({*chosen})
        assert set(chosen) <= set(range(available))
    # Neither takes fewer than it may.
    assert len(first) == min(excluding, available)
    assert len(others) == min(limit, available - len(first))


@given(available=st.integers(60, 300), limit=st.integers(10, 30), excluding=st.integers(0, 30))
def test_evaluation_beside_another_covers_the_whole_split(
    available: int, limit: int, excluding: int
) -> None:
    """Nowhere is more than three times an even share without one of them."""
    chosen = evenly_spaced(available, limit, excluding)
    assert chosen[0] <= 1
    assert np.diff([*chosen, available]).max() <= 3 * available / limit


def test_second_evaluation_has_the_sequences_that_the_first_leaves(corpus: Corpus) -> None:
    count = corpus.sequences("validation")
    first = numbers_in(corpus, 10, 0)
    second = numbers_in(corpus, 10**6, 10)
    assert len(first) == 10
    assert len(second) == count - 10
    # Together they are the whole split.
    assert sorted(first + second) == list(range(count))
    assert numbers_in(corpus, 3, count) == []
