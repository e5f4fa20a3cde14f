"""Held-out sequences for two purposes: evenly spaced ones for each, and none for both."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data.corpus import Batch, Corpus
from kdjax.data.loader import evenly_spaced, fixed_batches


def originals(batch: Batch) -> list[bytes]:
    """Each row's tokens with the masked ones put back; without the rows that only fill a batch
    up."""
    tokens = batch["tokens"].copy()
    rows, slots = np.nonzero(batch["label_weights"])
    tokens[rows, batch["slots"][rows, slots]] = batch["labels"][rows, slots]
    return [row.tobytes() for row in tokens[batch["valid"].any(axis=1)]]


def places(corpus: Corpus, limit: int, besides: int) -> list[int]:
    """The numbers of the sequences in an evaluation."""
    every = corpus.read("validation", np.arange(corpus.sequences("validation")))[0]
    rows = [row.tobytes() for row in every]
    made = fixed_batches(
        corpus,
        "validation",
        batch_size=5,
        limit=limit,
        seed=1,
        mlm_probability=0.15,
        max_predictions=4,
        besides=besides,
    )
    return [rows.index(row) for batch in made for row in originals(batch)]


@given(available=st.integers(0, 300), limit=st.integers(1, 300), besides=st.integers(1, 300))
def test_two_evaluations_share_no_sequence(available: int, limit: int, besides: int) -> None:
    taken = evenly_spaced(available, besides)
    others = evenly_spaced(available, limit, besides)
    assert not set(taken) & set(others)
    for chosen in (taken, others):
        assert list(chosen) == sorted({*chosen}) and set(chosen) <= set(range(available))
    assert len(taken) == min(besides, available)
    assert len(others) == min(limit, available - len(taken))


@given(available=st.integers(60, 300), limit=st.integers(10, 30), besides=st.integers(0, 30))
def test_both_see_the_whole_split_thinned_out(available: int, limit: int, besides: int) -> None:
    """Nowhere is more than three times an even share without one of them."""
    chosen = evenly_spaced(available, limit, besides)
    assert chosen[0] <= 1
    assert np.diff([*chosen, available]).max() <= 3 * available / limit


def test_a_second_evaluation_has_the_sequences_that_the_first_leaves(corpus: Corpus) -> None:
    count = corpus.sequences("validation")
    first = places(corpus, 10, 0)
    second = places(corpus, 10**6, 10)
    assert len(first) == 10 and len(second) == count - 10
    assert sorted(first + second) == list(range(count))
    assert places(corpus, 3, count) == []
