"""Rows go through in batches, and come back as if each had gone alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdjax.evaluation import rows
from kdjax.evaluation.rows import over_rows
from tests.evaluation.handmade import inputs


@pytest.mark.parametrize("count", [1, 2, 129, 300])
def test_results_keep_row_order_for_any_lengths(count: int) -> None:
    batch = inputs(count, np.random.default_rng(count), length=70, shortest=1)

    def sums(part: dict[str, Any]) -> Any:
        return np.stack([part["tokens"].sum(1), part["valid"].sum(1)], 1)

    np.testing.assert_array_equal(over_rows(sums, batch), sums(batch))


def test_batches_have_few_shapes_and_little_padding() -> None:
    batch = inputs(1000, np.random.default_rng(0), length=70, shortest=1)
    shapes = []

    def compute(part: dict[str, np.ndarray]) -> np.ndarray:
        shapes.append(part["tokens"].shape)
        assert all(values.shape == part["tokens"].shape for values in part.values())
        return np.zeros(len(part["tokens"]))

    assert over_rows(compute, batch).shape == (1000,)
    # Lengths are rounded up to two widths and the longest; batches hold as many tokens as they may.
    assert set(shapes) == {(64, 32), (32, 64), (29, 70)}
    assert all(b * length <= rows.TOKENS for b, length in shapes)


def test_rows_longer_than_batch_go_one_by_one() -> None:
    batch = inputs(3, np.random.default_rng(0), length=rows.TOKENS + 10, shortest=rows.TOKENS + 1)
    shapes = []

    def compute(part: dict[str, Any]) -> Any:
        shapes.append(part["tokens"].shape)
        return part["tokens"].sum(1)

    over_rows(compute, batch)
    assert shapes == [(1, rows.TOKENS + 10)] * 3
