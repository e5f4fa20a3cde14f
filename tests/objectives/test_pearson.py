"""The pearson term, against correlations of each document and head by NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kdjax.objectives import get
from tests.objectives.examples import (
    STUDENT,
    TEACHER,
    blocks,
    features,
    groups,
    packed,
    padded,
    softmax,
)

BATCHES = pytest.mark.parametrize("make", [padded, packed])
MakeBatch = Callable[[], dict[str, np.ndarray]]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


@BATCHES
def test_pearson_correlates_rows_and_columns(make: MakeBatch, float64: None) -> None:
    batch = make()
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    rows = []
    columns = []
    for x, y in zip(blocks(student, 2, batch), blocks(teacher, 4, batch), strict=True):
        p = softmax(x)
        q = softmax(y)
        # A document of one token has a constant row, which correlates with nothing.
        if len(p) > 1:
            rows += list(map(correlation, p, q))
            columns += list(map(correlation, p.T, q.T))

    def loss(axes: str) -> float:
        return float(get("pearson", axes=axes)(student, teacher, batch, {}))

    # The two axes are told apart first, as their sum would hide an exchange of them.
    assert loss("key") == pytest.approx(1 - np.mean(rows), rel=1e-9)
    assert loss("query") == pytest.approx(1 - np.mean(columns), rel=1e-9)
    assert float(get("pearson")(student, teacher, batch, {})) == pytest.approx(
        loss("key") + loss("query"), rel=1e-12
    )


@BATCHES
def test_pearson_over_heads_takes_each_pair_of_positions(make: MakeBatch, float64: None) -> None:
    batch = make()
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    correlations = []
    for b, at in groups(batch):
        p = softmax(np.asarray(student.scores[2])[b][:, at[:, None], at])
        q = softmax(np.asarray(teacher.scores[4])[b][:, at[:, None], at])
        # A lone token attends to itself with probability 1 in every head: nothing varies.
        if len(at) > 1:
            correlations += [
                correlation(p[:, i, j], q[:, i, j]) for i, j in np.ndindex(len(at), len(at))
            ]
    loss = get("pearson", axes="head")(student, teacher, batch, {})
    assert loss == pytest.approx(1 - np.mean(correlations), rel=1e-9)
