"""Rows go through in batches, and come back as if each had gone alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kdjax.evaluation import length_buckets
from kdjax.evaluation.length_buckets import buckets_of, compute_over_rows
from tests.evaluation.handmade import inputs, ragged


def sums(part: dict[str, Any]) -> Any:
    """Return each row's sum of tokens, and how many it has."""
    return np.stack([part["tokens"].sum(1), part["valid"].sum(1)], 1)


@pytest.mark.parametrize("count", [1, 2, 129, 300])
@pytest.mark.parametrize("parts", [1, 3])
def test_results_keep_row_order_for_any_lengths(count: int, parts: int) -> None:
    texts = inputs(count, np.random.default_rng(count), length=70, shortest=1)
    expected = [[text.sum(), len(text)] for text in texts]
    actual = compute_over_rows(sums, ragged(texts), 80, batch_parts=parts)
    np.testing.assert_array_equal(actual, expected)


def test_chosen_rows_alone_go_through_in_their_order() -> None:
    texts = inputs(50, np.random.default_rng(0), length=70, shortest=1)
    chosen = np.array([40, 3, 17])
    actual = compute_over_rows(sums, ragged(texts), 80, rows=chosen)
    np.testing.assert_array_equal(actual[:, 0], [texts[row].sum() for row in chosen])


def test_batches_have_few_shapes_and_little_padding() -> None:
    split = ragged(inputs(1000, np.random.default_rng(0), length=70, shortest=1))
    shapes = []

    def compute(part: dict[str, np.ndarray]) -> np.ndarray:
        shapes.append(part["tokens"].shape)
        assert all(values.shape == part["tokens"].shape for values in part.values())
        return np.zeros(len(part["tokens"]))

    assert compute_over_rows(compute, split, 80).shape == (1000,)
    assert len(set(shapes)) <= length_buckets.MOST
    assert all(b * length <= length_buckets.tokens_per_batch() for b, length in shapes)
    # Padding included, and what fills the last batches up.
    assert sum(b * length for b, length in shapes) < 1.4 * split.lengths.sum()


def test_batch_has_a_multiple_of_the_devices_rows() -> None:
    shapes = []

    def compute(part: dict[str, np.ndarray]) -> np.ndarray:
        shapes.append(part["tokens"].shape)
        return np.zeros(len(part["tokens"]))

    compute_over_rows(compute, ragged(inputs(20, np.random.default_rng(0))), 80, batch_parts=3)
    assert all(b % 3 == 0 for b, _ in shapes)


def test_rows_longer_than_batch_go_one_by_one() -> None:
    limit = length_buckets.tokens_per_batch()
    texts = inputs(3, np.random.default_rng(0), length=limit + 10, shortest=limit + 1)
    shapes = []

    def compute(part: dict[str, Any]) -> Any:
        shapes.append(part["tokens"].shape)
        return part["tokens"].sum(1)

    compute_over_rows(compute, ragged(texts), limit + 10)
    assert shapes == [(1, limit + 10)] * 3


def ten(length: int) -> int:
    """Return the rows of a batch, whatever the length."""
    return 10


def tokens_of(lengths: np.ndarray, ends: Sequence[int]) -> int:
    """Return the tokens of all batches of ten, with buckets that end at these lengths."""
    total = 0
    lower = 0
    for end in ends:
        count = int(((lengths > lower) & (lengths <= end)).sum())
        total += -(-count // 10) * 10 * end
        lower = end
    return total


def test_buckets_have_every_row_once_and_hold_it() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, 500)
    buckets = buckets_of(lengths, 512, ten)
    assert 1 < len(buckets) <= length_buckets.MOST
    numbers = np.concatenate([bucket.rows for bucket in buckets])
    assert sorted(numbers) == list(range(500))
    for bucket in buckets:
        assert lengths[bucket.rows].max() <= bucket.length


@pytest.mark.parametrize("count", [50, 170, 400])
def test_buckets_have_the_fewest_tokens_of_all_choices(count: int) -> None:
    rng = np.random.default_rng(count)
    lengths = np.clip(np.exp(rng.normal(3, 0.5, count)).astype(int), 1, 64)
    buckets = buckets_of(lengths, 512, ten)
    # Every choice of lengths that the rows allow, tried out.
    candidates = sorted({-(-int(length) // 8) * 8 for length in lengths})
    most = min(length_buckets.MOST, max(1, count // 10 // length_buckets.BATCHES), len(candidates))
    choices = []
    for number in range(most):
        for chosen in itertools.combinations(candidates[:-1], number):
            choices.append(tokens_of(lengths, [*chosen, candidates[-1]]))
    assert tokens_of(lengths, [bucket.length for bucket in buckets]) == min(choices)


@pytest.mark.parametrize("length", [1, 8, 9, 70, 250, 256, 257, 500])
def test_longest_bucket_ends_at_what_the_model_takes(length: int) -> None:
    (bucket,) = buckets_of(np.array([length]), length, ten)
    assert bucket.length == length


def test_few_rows_are_one_bucket() -> None:
    lengths = np.array([5] * 40 + [60] * 30)
    (bucket,) = buckets_of(lengths, 512, ten)
    assert (bucket.length, len(bucket.rows)) == (64, 70)


def test_rows_of_two_lengths_are_two_buckets_where_there_are_enough() -> None:
    lengths = np.array([5] * 100 + [60] * 100)
    short, long = buckets_of(lengths, 512, ten)
    assert (short.length, short.rows.tolist()) == (8, list(range(100)))
    assert (long.length, long.rows.tolist()) == (64, list(range(100, 200)))
