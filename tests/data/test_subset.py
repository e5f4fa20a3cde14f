"""The limited regime: a seeded subset of whole sequences, nested by size, that is used like the
corpus it is of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.data import subset
from kdjax.data.corpus import Corpus
from kdjax.data.loader import Batches, fixed_batches
from kdjax.data.subset import permutation, take_sequences
from kdjax.errors import InputError
from kdjax.training.teacher_cache import store as cache
from kdjax.training.teacher_cache.manifest import Field
from kdjax.training.teacher_cache.store import Cache
from tests.data.batches import MASKS, all_originals

SIZES = st.lists(st.integers(3, 9), min_size=1, max_size=40)
SEEDS = st.integers(-(2**70), 2**70)


def numbers_of(corpus: Corpus) -> np.ndarray:
    assert corpus.subset is not None
    return corpus.subset.numbers


def sizes_of(corpus: Corpus) -> np.ndarray:
    """Count the tokens of each training sequence."""
    _, segments = corpus.read("train", np.arange(corpus.sequences("train")))
    return np.array([np.count_nonzero(row) for row in segments])


@given(sequences=st.integers(0, 500), seed=SEEDS)
def test_permutation_has_every_number_once_and_depends_on_its_arguments_alone(
    sequences: int, seed: int
) -> None:
    order = permutation(sequences, seed)
    # Every number once.
    assert sorted(order.tolist()) == list(range(sequences))
    assert np.array_equal(order, permutation(sequences, seed))


def test_seeds_and_sizes_have_permutations_of_their_own() -> None:
    orders = [permutation(100, seed) for seed in (*range(-3, 15), 2**63, 2**63 + 1)] + [
        permutation(101, 0)[:100]
    ]
    for n, order in enumerate(orders):
        for other in (np.arange(100), *orders[:n]):
            assert np.sum(order == other) < 15


def test_permutation_equals_recorded_values() -> None:
    """Another one would be another subset under a study's seed."""
    assert permutation(8, 0).tolist() == [6, 4, 3, 7, 2, 1, 5, 0]
    assert permutation(8, 1).tolist() == [6, 5, 3, 4, 1, 7, 2, 0]


@given(sizes=SIZES, share=st.floats(0, 1), seed=SEEDS, block=st.integers(1, 50))
def test_subset_ends_before_the_first_sequence_that_does_not_fit(
    sizes: list[int], share: float, seed: int, block: int
) -> None:
    limit = share * sum(sizes)
    expected: list[int] = []
    for number in permutation(len(sizes), seed).tolist():
        # The first sequence that does not fit ends it, whatever would fit behind it.
        if sum(sizes[n] for n in expected) + sizes[number] > limit:
            break
        expected.append(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset, "BLOCK", block)
        chosen = take_sequences(len(sizes), limit, seed, lambda numbers: np.array(sizes)[numbers])
    assert chosen.numbers.tolist() == expected
    assert chosen.tokens == sum(sizes[n] for n in expected)


@given(sizes=SIZES, limits=st.tuples(st.integers(0, 400), st.integers(0, 400)), seed=SEEDS)
def test_smaller_subset_is_the_start_of_a_larger_one(
    sizes: list[int], limits: tuple[int, int], seed: int
) -> None:
    def read(numbers: np.ndarray) -> np.ndarray:
        return np.array(sizes)[numbers]

    small = take_sequences(len(sizes), min(limits), seed, read)
    large = take_sequences(len(sizes), max(limits), seed, read)
    assert len(small.numbers) <= len(large.numbers)
    assert np.array_equal(small.numbers, large.numbers[: len(small.numbers)])


def test_no_more_is_read_than_is_needed_and_a_block_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subset, "BLOCK", 10)
    asked: list[int] = []

    def tokens_of(numbers: np.ndarray) -> np.ndarray:
        asked.append(len(numbers))
        return np.full(len(numbers), 5)

    assert len(take_sequences(1000, 124, 0, tokens_of).numbers) == 24
    assert asked == [10, 10, 10]


@given(share=st.floats(0.02, 1), seed=st.integers(0, 5))
def test_limited_corpus_has_no_room_for_one_sequence_more(
    corpus: Corpus, share: float, seed: int
) -> None:
    sizes = sizes_of(corpus)
    limit = int(share * sizes.sum())
    small = corpus.limited(limit, seed)
    numbers = numbers_of(small)
    assert small.sequences("train") == len(numbers) == len(set(numbers.tolist()))
    assert small.tokens("train") == sizes[numbers].sum() == sizes_of(small).sum() <= limit
    if len(numbers) < len(sizes):
        # The next sequence would not have fitted.
        following = permutation(len(sizes), seed)[len(numbers)]
        assert small.tokens("train") + sizes[following] > limit


def test_subset_of_all_tokens_is_the_whole_split_permuted(corpus: Corpus) -> None:
    whole = corpus.limited(corpus.tokens("train"), 3)
    assert np.array_equal(numbers_of(whole), permutation(corpus.sequences("train"), 3))
    assert whole.tokens("train") == corpus.tokens("train")
    assert np.array_equal(
        numbers_of(corpus.limited(corpus.tokens("train") + 0.5, 3)), numbers_of(whole)
    )


def test_seeds_take_different_sequences(corpus: Corpus) -> None:
    chosen = [
        set(numbers_of(corpus.limited(corpus.tokens("train") // 4, seed)).tolist())
        for seed in range(4)
    ]
    for n, numbers in enumerate(chosen):
        for other in chosen[:n]:
            assert len(numbers & other) < 0.6 * len(numbers)


def test_subset_reads_the_sequences_it_has_chosen(corpus: Corpus) -> None:
    small = corpus.limited(900, 1)
    actual = small.read("train", np.array([2, 0]))
    expected = corpus.read("train", numbers_of(small)[[2, 0]])
    for rows, of_the_whole in zip(actual, expected, strict=True):
        assert np.array_equal(rows, of_the_whole)


def test_sequence_has_its_masks_in_every_subset(corpus: Corpus) -> None:
    epochs = np.arange(5)
    for limit in (900, 2000):
        small = corpus.limited(limit, 1)
        rows = np.arange(5)
        numbers = numbers_of(small)[rows]
        assert not np.array_equal(numbers, rows)
        for actual, expected in (
            (
                small.batch("train", rows, epochs, seed=4, mask_settings=MASKS),
                corpus.batch("train", numbers, epochs, seed=4, mask_settings=MASKS),
            ),
            (
                small.viewed("train", rows, epochs, mask_settings=MASKS),
                corpus.viewed("train", numbers, epochs, mask_settings=MASKS),
            ),
        ):
            assert actual.keys() == expected.keys()
            assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def test_subset_keeps_the_validation_split(corpus: Corpus) -> None:
    small = corpus.limited(900, 1)
    assert small.sequences("validation") == corpus.sequences("validation")
    assert small.tokens("validation") == corpus.tokens("validation")
    actual_batches = fixed_batches(
        small, "validation", batch_size=8, limit=20, seed=1, mask_settings=MASKS
    )
    expected = fixed_batches(
        corpus, "validation", batch_size=8, limit=20, seed=1, mask_settings=MASKS
    )
    assert len(actual_batches) == len(expected) == 3
    for a, b in zip(actual_batches, expected, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in b)


def test_every_epoch_has_each_of_the_subset_s_sequences_once(corpus: Corpus) -> None:
    small = corpus.limited(900, 1)
    # Sequences one by one, for three epochs.
    stream = Batches(small, batch_size=1, seed=2, mask_settings=MASKS)
    count = stream.sequences
    assert 20 < count < corpus.sequences("train") // 2
    everything = Counter(row.tobytes() for row in corpus.read("train", numbers_of(small))[0])
    orders = []
    for epoch in range(3):
        steps = range(epoch * count, (epoch + 1) * count)
        orders.append(all_originals(stream[step] for step in steps))
    assert all(Counter(order) == everything for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_stored_outputs_of_a_subset_come_with_its_sequences(corpus: Corpus, tmp_path: Path) -> None:
    small = corpus.limited(900, 1)
    count = small.sequences("train")

    def make(
        sequences: np.ndarray, views: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float | int]]:
        return {"seen": small.viewed("train", sequences, views, mask_settings=MASKS)["tokens"]}, {}

    fields = (Field("seen", "int32", (24,)),)
    cache.build_cache(
        tmp_path, identity={}, fields=fields, sequences=count, views=2, block=30, make=make
    )
    stored = Cache.open(tmp_path)
    stream = Batches(small, batch_size=7, seed=1, mask_copies=2, cache=stored, mask_settings=MASKS)
    for step in (0, count // 7, 2 * count // 7):
        batch = stream[step]
        assert np.array_equal(batch["seen"], batch["tokens"])
    with pytest.raises(
        InputError, match=f"holds 2 views of {count} sequences, expected 2 of the {count + 1} train"
    ):
        Batches(
            one_more(corpus, small),
            batch_size=7,
            seed=1,
            mask_copies=2,
            cache=stored,
            mask_settings=MASKS,
        )


def one_more(corpus: Corpus, small: Corpus) -> Corpus:
    """Return the subset that has one sequence more."""
    count = small.sequences("train")
    following = permutation(corpus.sequences("train"), 1)[count]
    return corpus.limited(small.tokens("train") + int(sizes_of(corpus)[following]), 1)


def test_digest_is_that_of_the_sequences_taken(corpus: Corpus) -> None:
    small = corpus.limited(900, 1)
    assert corpus.digest == corpus.manifest.digest
    assert small.digest == corpus.limited(900, 1).digest
    # Another limit, the same sequences
    assert small.digest == corpus.limited(small.tokens("train"), 1).digest
    others = [
        corpus,
        corpus.limited(900, 2),
        one_more(corpus, small),
        corpus.limited(corpus.tokens("train"), 1),
    ]
    # Another seed, another size, or the whole corpus: another digest.
    assert len({small.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert corpus.limited(900, 1).manifest == corpus.manifest


def test_corpus_with_too_few_tokens_says_how_many_are_missing(corpus: Corpus) -> None:
    available = corpus.tokens("train")
    for more in (1, 12345, float("inf")):
        with pytest.raises(InputError) as caught:
            corpus.limited(available + more, 0)
        assert str(caught.value) == (
            f"{corpus.directory}: has {available:,} training tokens, expected at least "
            "data.unique_tokens, "
            f"{available + more:,.0f}; {more:,.0f} are missing"
        )


def test_limit_below_one_sequence_is_refused(corpus: Corpus) -> None:
    first = int(sizes_of(corpus)[permutation(corpus.sequences("train"), 0)[0]])
    assert corpus.limited(first, 0).sequences("train") == 1
    with pytest.raises(InputError) as caught:
        corpus.limited(first - 1, 0)
    assert str(caught.value) == (
        f"data.unique_tokens is {first - 1}, expected at least the tokens of a sequence: up to 24 "
        f"in {corpus.directory}"
    )


def test_subset_of_a_subset_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="is limited already"):
        corpus.limited(900, 1).limited(500, 1)
