"""Every row is read once an epoch, among rows of like length."""

from __future__ import annotations

import numpy as np
import pytest

from kdjax.evaluation.finetuning.batches import Order
from tests.evaluation.handmade import inputs, ragged

SPLIT = ragged(inputs(203, np.random.default_rng(0), length=60, shortest=2))


def order(batch_size: int = 8) -> Order:
    return Order.from_split(SPLIT, batch_size, 80)


def test_epoch_has_every_row_once_in_each_lane() -> None:
    made = order()
    steps = list(made.iterate([0, 7], 0, 2 * made.steps_per_epoch))
    for first in (0, made.steps_per_epoch):
        epoch = steps[first : first + made.steps_per_epoch]
        for lane in range(2):
            rows = np.concatenate([step.rows[lane] for step in epoch])
            assert sorted(rows[rows >= 0]) == list(range(len(SPLIT)))


def test_rows_fit_their_steps_length() -> None:
    made = order()
    assert len(made.buckets) > 1
    for step in made.iterate([3], 0, made.steps_per_epoch):
        rows = step.rows[step.rows >= 0]
        assert SPLIT.lengths[rows].max() <= step.length


def test_lane_equals_the_same_seed_alone() -> None:
    made = order()
    for together, alone in zip(made.iterate([3, 5], 0, 60), made.iterate([5], 0, 60), strict=True):
        assert together.length == alone.length
        np.testing.assert_array_equal(together.rows[1], alone.rows[0])


def test_rows_differ_between_seeds_and_between_epochs() -> None:
    made = order()
    per_epoch = made.steps_per_epoch
    steps = list(made.iterate([0, 1], 0, 2 * per_epoch))
    lanes = np.stack([step.rows for step in steps], axis=1)
    assert (lanes[0] != lanes[1]).any()
    first = {tuple(step.rows[0]) for step in steps[:per_epoch]}
    assert tuple(steps[per_epoch].rows[0]) not in first


def test_buckets_take_turns() -> None:
    made = order()
    lengths = [step.length for step in made.iterate([0], 0, made.steps_per_epoch)]
    assert lengths != sorted(lengths)


@pytest.mark.parametrize("first", [0, 1, 26, 27, 60])
def test_steps_from_the_middle_equal_those_of_a_whole_run(first: int) -> None:
    made = order()
    whole = list(made.iterate([4], 0, 70))
    tail = list(made.iterate([4], first, 70))
    assert len(tail) == 70 - first
    for step, expected in zip(tail, whole[first:], strict=True):
        assert step.length == expected.length
        np.testing.assert_array_equal(step.rows, expected.rows)


def test_only_a_buckets_last_batch_is_filled_up() -> None:
    made = order()
    steps = list(made.iterate([0], 0, made.steps_per_epoch))
    partial = [step.length for step in steps if (step.rows < 0).any()]
    assert len(partial) == len(set(partial))


def test_batch_larger_than_the_task_has_each_row_once() -> None:
    made = Order.from_split(ragged(inputs(3, np.random.default_rng(0))), 8, 80)
    (step,) = made.iterate([0], 0, 1)
    assert made.steps_per_epoch == 1
    assert sorted(step.rows[0]) == [-1] * 5 + [0, 1, 2]
