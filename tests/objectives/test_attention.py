"""Terms over attention scores, against loops over documents, heads and positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.objectives import get
from tests.objectives.examples import (
    STUDENT,
    TEACHER,
    blocks,
    features,
    kl,
    packed,
    padded,
    softmax,
)

BATCHES = pytest.mark.parametrize("make", [padded, packed])
MakeBatch = Callable[[], dict[str, np.ndarray]]


def probability_rows(
    model_features: Any, layer: int, batch: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Return the attention distributions of each document and head, row by row."""
    rows: list[np.ndarray] = []
    for scores in blocks(model_features, layer, batch):
        rows += list(softmax(scores))
    return rows


@BATCHES
@pytest.mark.parametrize(
    ("layers", "mapped"),
    [
        ("uniform", [(1, 2), (2, 4)]),
        ("lower", [(1, 1), (2, 2)]),
        ("upper", [(1, 3), (2, 4)]),
        ("last", [(2, 4)]),
        ([[1, 4]], [(1, 4)]),
    ],
)
def test_attention_mse_is_a_sum_over_layers_of_means_inside_documents(
    make: MakeBatch, layers: Any, mapped: list[tuple[int, int]], float64: None
) -> None:
    batch = make()
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    expected = 0.0
    # Each layer pair has a mean of its own: layers of other sizes would weigh otherwise.
    for m, n in mapped:
        student_scores = np.concatenate([x.ravel() for x in blocks(student, m, batch)])
        teacher_scores = np.concatenate([x.ravel() for x in blocks(teacher, n, batch)])
        expected += np.mean((student_scores - teacher_scores) ** 2)
    assert get("attention_mse", layers=layers)(student, teacher, batch, {}) == pytest.approx(
        expected, rel=1e-12
    )


@BATCHES
@pytest.mark.parametrize("teacher_layer", [0, 2])
def test_attention_kl_is_a_mean_over_rows_inside_documents(
    make: MakeBatch, teacher_layer: int, float64: None
) -> None:
    batch = make()
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    student_rows = probability_rows(student, 2, batch)
    teacher_rows = probability_rows(teacher, teacher_layer or 4, batch)
    divergences = [kl(q, p) for p, q in zip(student_rows, teacher_rows, strict=True)]
    # Every valid token is a row in each head, and a padded one is none.
    assert len(divergences) == STUDENT.heads * batch["valid"].sum()
    loss = get("attention_kl", teacher_layer=teacher_layer)(student, teacher, batch, {})
    assert loss == pytest.approx(np.mean(divergences), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("attention_kl", {}), ("attention_mse", {"layers": [[2, 1]]})],
)
def test_scores_of_a_layer_with_a_window_are_refused_and_relations_are_not(
    name: str, options: dict[str, Any]
) -> None:
    """What lies beyond the window enters no softmax; relations are of vectors, and need none."""
    local = replace(STUDENT, attention_window=4, global_every=2)
    assert local.is_local(STUDENT.layers)
    with pytest.raises(InputError, match="layer 2 of the student sees 2 positions to either side"):
        get(name, **options).needs(local, TEACHER)
    assert get("relation").needs(local, TEACHER).student.query == frozenset({STUDENT.layers})
