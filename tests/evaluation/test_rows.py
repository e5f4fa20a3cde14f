"""Rows go through in batches, and come back as if each had gone alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdjax.evaluation import rows
from kdjax.evaluation.rows import buckets_of, over_rows
from tests.evaluation.handmade import inputs, ragged


def sums(part: dict[str, Any]) -> Any:
    """Return each row's sum of tokens, and how many it has."""
    return np.stack([part["tokens"].sum(1), part["valid"].sum(1)], 1)


@pytest.mark.parametrize("count", [1, 2, 129, 300])
@pytest.mark.parametrize("parts", [1, 3])
def test_results_keep_row_order_for_any_lengths(count: int, parts: int) -> None:
    texts = inputs(count, np.random.default_rng(count), length=70, shortest=1)
    expected = [[text.sum(), len(text)] for text in texts]
    actual = over_rows(sums, ragged(texts), 80, batch_parts=parts)
    np.testing.assert_array_equal(actual, expected)


def test_chosen_rows_alone_go_through_in_their_order() -> None:
    texts = inputs(50, np.random.default_rng(0), length=70, shortest=1)
    chosen = np.array([40, 3, 17])
    actual = over_rows(sums, ragged(texts), 80, rows=chosen)
    np.testing.assert_array_equal(actual[:, 0], [texts[row].sum() for row in chosen])


def test_batches_have_few_shapes_and_little_padding() -> None:
    split = ragged(inputs(1000, np.random.default_rng(0), length=70, shortest=1))
    shapes = []

    def compute(part: dict[str, np.ndarray]) -> np.ndarray:
        shapes.append(part["tokens"].shape)
        assert all(values.shape == part["tokens"].shape for values in part.values())
        return np.zeros(len(part["tokens"]))

    assert over_rows(compute, split, 80).shape == (1000,)
    assert len(set(shapes)) <= 10
    assert all(b * length <= rows.tokens_per_batch() for b, length in shapes)
    # All but the last batch of each length are full.
    padded = sum(b * length for b, length in set(shapes))
    assert sum(b * length for b, length in shapes) - padded < 1.3 * split.lengths.sum()


def test_batch_has_a_multiple_of_the_devices_rows() -> None:
    shapes = []

    def compute(part: dict[str, np.ndarray]) -> np.ndarray:
        shapes.append(part["tokens"].shape)
        return np.zeros(len(part["tokens"]))

    over_rows(compute, ragged(inputs(20, np.random.default_rng(0))), 80, batch_parts=3)
    assert all(b % 3 == 0 for b, _ in shapes)


def test_rows_longer_than_batch_go_one_by_one() -> None:
    limit = rows.tokens_per_batch()
    texts = inputs(3, np.random.default_rng(0), length=limit + 10, shortest=limit + 1)
    shapes = []

    def compute(part: dict[str, Any]) -> Any:
        shapes.append(part["tokens"].shape)
        return part["tokens"].sum(1)

    over_rows(compute, ragged(texts), limit + 10)
    assert shapes == [(1, limit + 10)] * 3


def test_buckets_have_every_row_once_and_pad_short_rows_by_at_most_seven() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, 500)
    buckets = buckets_of(lengths, 512)
    numbers = np.concatenate([bucket.rows for bucket in buckets])
    assert sorted(numbers) == list(range(500))
    for bucket in buckets:
        assert lengths[bucket.rows].max() <= bucket.length
        assert bucket.length - lengths[bucket.rows].max() <= 7


@pytest.mark.parametrize("length", [1, 8, 9, 70, 250, 256, 257, 500])
def test_longest_bucket_ends_at_what_the_model_takes(length: int) -> None:
    (bucket,) = buckets_of(np.array([length]), length)
    assert bucket.length == length


def test_small_bucket_joins_the_next_longer_one() -> None:
    lengths = np.array([5] * 3 + [12] * 50 + [60])
    short, long = buckets_of(lengths, 512)
    # Three short rows are too few, and the one long row has no longer ones to join.
    assert (short.length, len(short.rows)) == (16, 53)
    assert (long.length, len(long.rows)) == (64, 1)


def test_fewest_rows_of_a_bucket_can_be_asked_for() -> None:
    lengths = np.array([5] * 30 + [12] * 50)
    assert [len(bucket.rows) for bucket in buckets_of(lengths, 512, fewest=30)] == [30, 50]
    assert [len(bucket.rows) for bucket in buckets_of(lengths, 512, fewest=31)] == [80]
