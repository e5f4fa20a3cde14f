"""Shuffling visible tokens keeps every word in its segment, and masked slots as they were."""

from __future__ import annotations

import numpy as np

from kdjax.evaluation.shuffle import shuffle_visible
from tests.support import tiny

SPECIAL = (0, 1, 2)


def masked(batch: dict[str, np.ndarray]) -> np.ndarray:
    """Return where the slots in use are, `[B, L]`."""
    where = np.zeros(batch["tokens"].shape, bool)
    for row, slots, weights in zip(where, batch["slots"], batch["label_weights"], strict=True):
        row[slots[weights > 0]] = True
    return where


def test_shuffle_moves_only_visible_tokens_within_segments() -> None:
    batches = [tiny.batch(seed) for seed in range(3)]
    shuffled = shuffle_visible(batches, SPECIAL, 7)
    moved = 0
    for before, after in zip(batches, shuffled, strict=True):
        # Masked slots, padding and special tokens may not move.
        fixed = masked(before) | ~before["valid"] | np.isin(before["tokens"], SPECIAL)
        np.testing.assert_array_equal(after["tokens"][fixed], before["tokens"][fixed])
        # Words stay within their segment.
        for row in range(len(fixed)):
            for segment in (1, 2):
                here = before["segments"][row] == segment
                np.testing.assert_array_equal(
                    np.sort(after["tokens"][row, here]), np.sort(before["tokens"][row, here])
                )
        moved += int((after["tokens"] != before["tokens"]).sum())
        # Nothing but tokens changes.
        for name in before:
            if name != "tokens":
                np.testing.assert_array_equal(after[name], before[name])
    assert moved > 50


def test_permutation_follows_from_seed_and_batch_number() -> None:
    batches = [tiny.batch(0)]
    first = shuffle_visible(batches, SPECIAL, 7)[0]["tokens"]
    second = shuffle_visible(batches, SPECIAL, 7)[0]["tokens"]
    other = shuffle_visible(batches, SPECIAL, 8)[0]["tokens"]
    # The seed and the batch's number are all it depends on.
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert (shuffle_visible(batches * 2, SPECIAL, 7)[1]["tokens"] != first).any()
