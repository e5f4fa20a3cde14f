"""Terms over hidden states, against loops over documents and positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kdjax.config import ModelConfig
from kdjax.objectives import Features, get
from tests.objectives.examples import (
    STUDENT,
    TEACHER,
    WIDE,
    features,
    groups,
    packed,
    padded,
    params_of,
)

BATCHES = pytest.mark.parametrize("make", [padded, packed])
TEACHERS = pytest.mark.parametrize("teacher_config", [TEACHER, WIDE], ids=["equal", "wider"])
MakeBatch = Callable[[], dict[str, np.ndarray]]


def at_valid(model_features: Features, layer: int, batch: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(model_features.hidden[layer])[batch["valid"]]


@BATCHES
def test_cosine_compares_the_last_hidden_states(make: MakeBatch, float64: None) -> None:
    batch = make()
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    distances = [
        1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        for x, y in zip(at_valid(student, 2, batch), at_valid(teacher, 4, batch), strict=True)
    ]
    assert get("cosine")(student, teacher, batch, {}) == pytest.approx(
        np.mean(distances), rel=1e-12
    )


@BATCHES
@TEACHERS
@pytest.mark.parametrize(
    ("layers", "mapped"),
    [
        ("uniform", [(0, 0), (1, 2), (2, 4)]),
        ("upper", [(0, 0), (1, 3), (2, 4)]),
        ("last", [(2, 4)]),
        ([[0, 1]], [(0, 1)]),
    ],
)
def test_hidden_mse_shares_one_projection(
    make: MakeBatch,
    teacher_config: ModelConfig,
    layers: Any,
    mapped: list[tuple[int, int]],
    float64: None,
) -> None:
    batch = make()
    term = get("hidden_mse", layers=layers)
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    params = params_of(term, STUDENT, teacher_config)
    # One kernel serves all pairs of layers: the term has no other parameters.
    kernel = np.asarray(params["kernel"])
    bias = np.asarray(params["bias"])
    expected = sum(
        np.mean((at_valid(student, m, batch) @ kernel + bias - at_valid(teacher, n, batch)) ** 2)
        for m, n in mapped
    )
    assert term(student, teacher, batch, params) == pytest.approx(expected, rel=1e-12)


@BATCHES
@TEACHERS
def test_hidden_cls_compares_the_first_token_of_each_document(
    make: MakeBatch, teacher_config: ModelConfig, float64: None
) -> None:
    batch = make()
    term = get("hidden_cls")
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    params = params_of(term, STUDENT, teacher_config)
    # Models of one width are compared as they are.
    kernel, bias = (params["kernel"], params["bias"]) if params else (np.eye(8), 0)
    student_hidden = np.asarray(student.hidden[2])
    teacher_hidden = np.asarray(teacher.hidden[4])
    squares = [
        (student_hidden[b, at[0]] @ kernel + bias - teacher_hidden[b, at[0]]) ** 2
        for b, at in groups(batch)
    ]
    assert term(student, teacher, batch, params) == pytest.approx(
        float(np.mean(squares)), rel=1e-12
    )


@BATCHES
@TEACHERS
def test_hidden_concat_projects_all_layers_at_once(
    make: MakeBatch, teacher_config: ModelConfig, float64: None
) -> None:
    batch = make()
    term = get("hidden_concat")
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    params = params_of(term, STUDENT, teacher_config)
    # All layers side by side make one vector a token, and one product projects it.
    student_hidden = np.concatenate([at_valid(student, m, batch) for m in (1, 2)], axis=-1)
    teacher_hidden = np.concatenate([at_valid(teacher, n, batch) for n in (1, 2, 3, 4)], axis=-1)
    expected = np.mean(
        (
            student_hidden @ np.asarray(params["kernel"])
            + np.asarray(params["bias"])
            - teacher_hidden
        )
        ** 2
    )
    assert term(student, teacher, batch, params) == pytest.approx(expected, rel=1e-12)
