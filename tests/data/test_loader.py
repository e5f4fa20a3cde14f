"""Batches by step number: any of them, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from kdjax.data.corpus import Corpus, HostBatch
from kdjax.data.loader import Batches, fixed_batches, view_of
from kdjax.data.masking import MaskRule, mask
from kdjax.errors import InputError
from kdjax.training.teacher_cache import store as cache
from kdjax.training.teacher_cache.manifest import Field
from kdjax.training.teacher_cache.store import Cache
from tests.data.batches import MASKS, all_originals, originals

BATCH = 7
SHAPES = {
    "tokens": 24,
    "segments": 24,
    "positions": 24,
    "valid": 24,
    "slots": 4,
    "labels": 4,
    "label_weights": 4,
}


def batches(corpus: Corpus, seed: int = 0, **changes: Any) -> Batches:
    return Batches(corpus, **{"batch_size": BATCH, "seed": seed, "mask_settings": MASKS, **changes})


def same(a: HostBatch, b: HostBatch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def order(corpus: Corpus, seed: int, epochs: int) -> list[bytes]:
    """Return the first sequences of a stream, as many as `epochs` epochs have."""
    stream = batches(corpus, seed, batch_size=1)
    return [originals(stream[step])[0] for step in range(epochs * stream.sequences)]


def test_batch_has_the_promised_arrays(corpus: Corpus) -> None:
    batch = batches(corpus)[3]
    assert {name: array.shape for name, array in batch.items()} == {
        k: (BATCH, n) for k, n in SHAPES.items()
    }
    kinds = {name: array.dtype for name, array in batch.items()}
    assert kinds == {
        **dict.fromkeys(SHAPES, np.int32),
        "valid": np.bool_,
        "label_weights": np.float32,
    }
    assert np.array_equal(batch["valid"], batch["segments"] > 0)
    assert np.array_equal(
        batch["positions"] == 0, np.diff(batch["segments"], axis=1, prepend=-1) != 0
    )
    # Only tokens of the text are masked, never special ones, whose ids are below 5.
    rows = np.arange(BATCH)[:, None]
    used = batch["label_weights"] > 0
    assert used.any(axis=1).all()
    assert batch["valid"][rows, batch["slots"]][used].all()
    assert batch["labels"][used].min() >= 5


def test_indexing_equals_iterating_from_anywhere(corpus: Corpus) -> None:
    stream = batches(corpus)
    again = batches(corpus)
    for start, stop in ((0, 40), (33, 36), (10**6, 10**6 + 3)):
        seen = []
        for step, (before, batch) in enumerate(
            itertools.islice(stream.iterate(start * BATCH), stop - start), start
        ):
            seen.append(before)
            assert same(batch, again[step])
        assert seen == [step * BATCH for step in range(start, stop)]


def test_batches_of_another_size_go_on_where_those_before_ended(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    _, first = next(batches(corpus).iterate(0))
    following = itertools.islice(batches(corpus, batch_size=3).iterate(BATCH), count // 3 + 1)
    # A batch of 7, then batches of 3, for an epoch and a little more.
    joined = originals(first) + all_originals(batch for _, batch in following)
    assert joined[:count] == [originals(batches(corpus, batch_size=1)[n])[0] for n in range(count)]
    # The next epoch begins.
    assert joined[count] in joined[:count]


def test_chosen_rows_of_a_batch_equal_those_of_the_whole_batch(corpus: Corpus) -> None:
    rows = np.array([1, 2, 6])
    for start in (0, corpus.sequences("train") - 3):  # the second straddles two epochs
        _, whole = next(batches(corpus).iterate(start))
        _, some = next(batches(corpus).iterate(start, rows))
        assert same(some, {name: values[rows] for name, values in whole.items()})


def test_stream_left_early_leaves_no_thread_behind(corpus: Corpus) -> None:
    before = set(threading.enumerate())
    stream = batches(corpus).iterate(0)
    next(stream)
    # Reading ahead runs in threads of its own.
    readers = set(threading.enumerate()) - before
    assert readers
    stream.close()
    for reader in readers:
        reader.join(timeout=10)
        assert not reader.is_alive()


def test_each_epoch_visits_every_sequence_once_in_an_order_of_its_own(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    # The sequences of the whole split.
    everything = Counter(row.tobytes() for row in corpus.read("train", np.arange(count))[0])
    seen = order(corpus, 0, epochs=3)
    epochs = [seen[start : start + count] for start in range(0, len(seen), count)]
    for epoch in epochs:
        assert Counter(epoch) == everything
    for a, b in combinations(epochs, 2):
        assert sum(x == y for x, y in zip(a, b, strict=True)) < count // 10


def test_batches_straddle_epochs_without_losing_a_sequence(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    assert count % BATCH
    one_by_one = order(corpus, 4, epochs=2)
    stream = batches(corpus, 4)
    joined = all_originals(stream[step] for step in range(2 * count // BATCH))
    assert joined == one_by_one[: len(joined)]


def test_runs_with_neighbouring_seeds_share_no_epoch_s_order(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    epochs = []
    for seed in range(3):
        seen = order(corpus, seed, epochs=3)
        epochs += [seen[start : start + count] for start in range(0, len(seen), count)]
    for n, a in enumerate(epochs):
        for b in epochs[:n]:
            assert sum(x == y for x, y in zip(a, b, strict=True)) < count // 10


def test_sequence_is_masked_anew_in_each_epoch_and_alike_in_any_batch(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    masks: dict[bytes, list[bytes]] = {}
    by_one = batches(corpus, batch_size=1)
    by_many = batches(corpus)
    for step in range(2 * count // BATCH):
        for row, values in enumerate(zip(*by_many[step].values(), strict=True)):
            single = by_one[step * BATCH + row]
            assert all(
                np.array_equal(value, array[0])
                for value, array in zip(values, single.values(), strict=True)
            )
            masks.setdefault(originals(single)[0], []).append(single["tokens"].tobytes())
    renewed = [len(set(copies)) == len(copies) for copies in masks.values() if len(copies) == 2]
    assert len(renewed) > count - BATCH
    assert np.mean(renewed) > 0.9  # a very short sequence may meet the same mask twice


def test_without_views_a_mask_is_that_of_seed_sequence_and_epoch(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    manifest = corpus.manifest
    tokens, segments = corpus.read("train", np.arange(count))
    # Each sequence is told by its tokens.
    numbers = {row.tobytes(): number for number, row in enumerate(tokens)}
    assert len(numbers) == count
    stream = batches(corpus, seed=5)
    rule = MaskRule(
        MASKS,
        vocab_size=manifest.vocab_size,
        special_ids=manifest.special_ids,
        mask_id=manifest.special.mask,
    )
    for step in (0, count // BATCH):  # the second straddles two epochs
        batch = stream[step]
        for row, original in enumerate(originals(batch)):
            expected = mask(
                tokens[numbers[original]],
                segments[numbers[original]],
                rule,
                seed=5,
                sequence=numbers[original],
                epoch=(step * BATCH + row) // count,
            )
            for name, values in expected._asdict().items():
                assert np.array_equal(batch[name][row], values)


def test_view_of_cycles_from_the_seed() -> None:
    assert [int(view_of(epoch, 0, 3)) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [int(view_of(0, seed, 3)) for seed in (0, 1, 2, 3, -1, 10**30)] == [0, 1, 2, 0, 2, 1]
    assert view_of(np.array([[0, 1], [2, 3]]), 5, 4).tolist() == [[1, 2], [3, 0]]
    assert not view_of(np.arange(9), 7, 1).any()


def test_views_of_a_sequence_are_distinct_masks_of_it(corpus: Corpus) -> None:
    sequences = np.arange(corpus.sequences("train"))
    views = [
        corpus.viewed("train", sequences, sequences * 0 + view, mask_settings=MASKS)
        for view in range(3)
    ]
    tokens = [row.tobytes() for row in corpus.read("train", sequences)[0]]
    for number, batch in enumerate(views):
        assert originals(batch) == tokens
        for other in views[:number]:  # a very short sequence may meet the same mask twice
            assert np.mean((batch["slots"] != other["slots"]).any(axis=1)) > 0.9


def test_all_seeds_see_the_same_views_in_orders_of_their_own(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    k = 2
    masked: dict[tuple[int, bytes], set[bytes]] = {}
    firsts = set()
    for seed in range(3):
        stream = batches(corpus, seed, batch_size=1, mask_copies=k)
        firsts.add(originals(stream[0])[0])
        for step in range(3 * count):
            batch = stream[step]
            view = (step // count + seed) % k
            masked.setdefault((view, originals(batch)[0]), set()).add(batch["tokens"].tobytes())
    # Orders differ between seeds, masks of a view do not.
    assert len(firsts) > 1
    assert len(masked) == k * count
    assert all(len(copies) == 1 for copies in masked.values())


def test_mask_copies_do_not_change_the_order(corpus: Corpus) -> None:
    plain = batches(corpus, 4)
    viewed = batches(corpus, 4, mask_copies=2)
    for step in (0, 11, corpus.sequences("train") // BATCH, 500):
        assert originals(plain[step]) == originals(viewed[step])
        assert not np.array_equal(plain[step]["tokens"], viewed[step]["tokens"])


@pytest.fixture(scope="module")
def stored(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Records that a teacher of two views might leave: the masked tokens, and twice the labels."""
    directory = tmp_path_factory.mktemp("cache")

    def make(
        sequences: np.ndarray, views: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float | int]]:
        batch = corpus.viewed("train", sequences, views, mask_settings=MASKS)
        return {
            "teacher.seen": batch["tokens"],
            "teacher.twice": (2 * batch["labels"]).astype(np.float16),
        }, {}

    fields = (Field("teacher.seen", "int32", (24,)), Field("teacher.twice", "float16", (4,)))
    count = corpus.sequences("train")
    cache.build_cache(
        directory, identity={}, fields=fields, sequences=count, views=2, block=50, make=make
    )
    return Cache.open(directory)


@pytest.mark.parametrize("seed", [0, 1])
def test_batch_has_the_stored_rows_of_its_sequences_and_views(
    corpus: Corpus, stored: Cache, seed: int
) -> None:
    count = corpus.sequences("train")
    with_cache = batches(corpus, seed, mask_copies=2, cache=stored)
    without = batches(corpus, seed, mask_copies=2)
    # A batch that has sequences of two epochs, and so of two views.
    straddling = count // BATCH
    assert count % BATCH
    for start in (0, straddling, 2 * count // BATCH):
        for step, (_, batch) in enumerate(
            itertools.islice(with_cache.iterate(start * BATCH), 2), start
        ):
            assert np.array_equal(batch["teacher.seen"], batch["tokens"])
            assert np.array_equal(batch["teacher.twice"], 2.0 * batch["labels"])
            assert batch["teacher.twice"].dtype == np.float16
            assert same({name: batch[name] for name in SHAPES}, without[step])


def test_cache_of_other_sequences_or_fewer_views_is_refused(corpus: Corpus, stored: Cache) -> None:
    train = corpus.sequences("train")
    validation = corpus.sequences("validation")
    with pytest.raises(InputError, match=r"found data\.mask_copies 0, expected at least 1"):
        batches(corpus, cache=stored)
    with pytest.raises(
        InputError, match=f"holds 2 views of {train} sequences, expected 3 of the {train} train"
    ):
        batches(corpus, mask_copies=3, cache=stored)
    with pytest.raises(
        InputError, match=f"holds 2 views of {train} .*, expected 2 of the {validation} validation"
    ):
        batches(corpus, split="validation", mask_copies=2, cache=stored)
    # A cache may have more views than a run sees.
    assert batches(corpus, mask_copies=1, cache=stored)[0]["teacher.seen"].shape == (BATCH, 24)


def test_fixed_batches_are_the_split_in_order_filled_up_with_nothing(corpus: Corpus) -> None:
    count = corpus.sequences("validation")
    assert count % 8
    fixed = fixed_batches(
        corpus,
        "validation",
        batch_size=8,
        limit=10**6,
        seed=1,
        mask_settings=MASKS,
    )
    assert [len(batch["tokens"]) for batch in fixed] == [8] * (count // 8 + 1)
    rows = all_originals(fixed)
    assert rows[:count] == [row.tobytes() for row in corpus.read("validation", np.arange(count))[0]]
    # The last batch has fewer sequences than rows.
    last = fixed[-1]
    real = count % 8
    assert last["label_weights"][:real].any(axis=1).all()
    assert not any(
        last[name][real:].any()
        for name in ("tokens", "segments", "valid", "label_weights", "labels")
    )
    assert {name: array.shape for name, array in last.items()} == {
        k: (8, n) for k, n in SHAPES.items()
    }
    again = fixed_batches(
        corpus,
        "validation",
        batch_size=8,
        limit=10**6,
        seed=1,
        mask_settings=MASKS,
    )
    assert all(same(a, b) for a, b in zip(fixed, again, strict=True))


def test_limited_evaluation_sees_the_whole_split_thinned_out(corpus: Corpus) -> None:
    count = corpus.sequences("validation")
    all_rows = [row.tobytes() for row in corpus.read("validation", np.arange(count))[0]]
    fixed = fixed_batches(
        corpus,
        "validation",
        batch_size=5,
        limit=10,
        seed=1,
        mask_settings=MASKS,
    )
    places = [all_rows.index(row) for row in all_originals(fixed)]
    assert len(set(places)) == 10
    assert places == sorted(places)
    # From the first to almost the last.
    assert places[0] == 0
    assert places[-1] >= 0.8 * count


def test_batch_larger_than_the_split_is_refused(corpus: Corpus) -> None:
    count = corpus.sequences("train")
    assert batches(corpus, batch_size=count)[0]["tokens"].shape == (count, 24)
    with pytest.raises(
        InputError, match=f"{count} train sequences cannot fill a batch of {count + 1}"
    ):
        batches(corpus, batch_size=count + 1)
