"""Relations of queries, keys and values, against loops over documents and heads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from kdjax.config import ModelConfig
from kdjax.objectives import get
from kdjax.objectives.relations import Relation
from tests.objectives.examples import (
    STUDENT,
    TEACHER,
    WIDE,
    features,
    groups,
    kl,
    packed,
    padded,
    softmax,
)

BATCHES = pytest.mark.parametrize("make", [padded, packed])
MakeBatch = Callable[[], dict[str, np.ndarray]]


def divergence(
    student_x: np.ndarray, teacher_x: np.ndarray, heads: int, batch: dict[str, np.ndarray]
) -> float:
    """Compute the mean over relation heads and valid rows, from vectors `[B, H, L, d]`."""
    total = 0.0
    rows = 0
    for b, at in groups(batch):
        # Heads are joined and split anew: relation heads need not be the model's.
        relations = []
        for x in (student_x, teacher_x):
            joined = np.concatenate(list(x[b]), axis=-1)[at]  # heads side by side: [length, D]
            parts = np.split(joined, heads, axis=-1)
            relations.append([softmax(part @ part.T / math.sqrt(part.shape[-1])) for part in parts])
        for a in range(heads):
            for i in range(len(at)):
                total += kl(relations[1][a][i], relations[0][a][i])
                rows += 1
    return total / rows


@BATCHES
@pytest.mark.parametrize("teacher_config", [TEACHER, WIDE], ids=["equal", "wider, more heads"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_relation_splits_both_widths_anew(
    make: MakeBatch, teacher_config: ModelConfig, heads: int, float64: None
) -> None:
    batch = make()
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    expected = sum(
        divergence(np.asarray(student_x[2]), np.asarray(teacher_x[4]), heads, batch)
        for student_x, teacher_x in (
            (student.query, teacher.query),
            (student.key, teacher.key),
            (student.value, teacher.value),
        )
    )
    # The check of needs is what refuses widths that the heads do not divide.
    term = get("relation", relation_heads=heads)
    term.needs(STUDENT, teacher_config)
    assert term(student, teacher, batch, {}) == pytest.approx(expected, rel=1e-12)


def test_relation_weighs_query_key_value_and_takes_a_named_teacher_layer(float64: None) -> None:
    batch = packed()
    student = features(STUDENT, batch, 1)
    teacher = features(WIDE, batch, 2)
    # Only keys and values have a weight, the latter half as much.
    key = divergence(np.asarray(student.key[2]), np.asarray(teacher.key[3]), 2, batch)
    value = divergence(np.asarray(student.value[2]), np.asarray(teacher.value[3]), 2, batch)
    term = get("relation", relation_heads=2, teacher_layer=3, query=0, key=1, value=0.5)
    assert term(student, teacher, batch, {}) == pytest.approx(key + 0.5 * value, rel=1e-12)


@pytest.mark.parametrize(("layers", "chosen"), [(4, 4), (12, 12), (21, 21), (24, 21), (36, 36)])
def test_relation_of_a_large_teacher_takes_its_upper_middle_layer(
    layers: int, chosen: int, float64: None
) -> None:
    """No other term makes this choice, and it holds next to terms that ask for other layers."""
    batch = packed()
    teacher_config = dataclasses.replace(TEACHER, layers=layers)
    # From 24 layers on, MiniLMv2 takes layer 21; smaller teachers their last.
    needs = get("relation").needs(STUDENT, teacher_config)
    assert needs.teacher.query == needs.teacher.value == {chosen}
    assert needs.student.key == {2}
    assert get("value_relation").needs(STUDENT, teacher_config).teacher.value == {layers}
    assert get("attention_kl").needs(STUDENT, teacher_config).teacher.scores == {layers}
    # Other terms may ask for layers too: what else is at hand must not change the choice.
    student = features(STUDENT, batch, 1)
    whole = features(teacher_config, batch, 2)
    expected = get("relation", teacher_layer=chosen)(student, whole, batch, {})
    others: set[int]
    for others in (set(), {22}, {23}, {24}, {1, 22, 24}):
        query = {n: whole.query[n] for n in {chosen, *others} if n <= layers}
        teacher = dataclasses.replace(whole, query=query, value={chosen: whole.value[chosen]})
        assert get("relation")(student, teacher, batch, {}) == expected


@pytest.mark.parametrize(
    ("student", "teacher", "heads"),
    [
        (768, 768, 48),
        (384, 768, 48),
        (192, 384, 48),
        (128, 768, 32),
        (1024, 1024, 64),
        (16, 24, 8),
        (7, 9, 1),
    ],
)
def test_relation_heads_are_the_papers_where_the_widths_allow(
    student: int, teacher: int, heads: int
) -> None:
    assert Relation().heads(student, teacher) == heads


@BATCHES
@pytest.mark.parametrize("width", [8, 12])
def test_value_relation_compares_head_by_head(make: MakeBatch, width: int, float64: None) -> None:
    batch = make()
    teacher_config = ModelConfig(
        layers=4, width=width, heads=4, ffn=8, vocab_size=STUDENT.vocab_size
    )
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    expected = divergence(np.asarray(student.value[2]), np.asarray(teacher.value[4]), 4, batch)
    assert get("value_relation")(student, teacher, batch, {}) == pytest.approx(expected, rel=1e-12)


def test_published_value_relation_scales_both_sides_by_the_students_width(float64: None) -> None:
    batch = padded()
    teacher_config = ModelConfig(layers=1, width=12, heads=4, ffn=8, vocab_size=STUDENT.vocab_size)
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    # Two is the student's head width; the published code divides both sides by its root.
    student_x = np.asarray(student.value[2])
    teacher_x = np.asarray(teacher.value[1])
    relations = [
        softmax(np.einsum("bhld,bhmd->bhlm", x, x) / math.sqrt(2)) for x in (student_x, teacher_x)
    ]
    expected = kl(relations[1], relations[0]) / math.prod(student_x.shape[:3])
    assert get("value_relation", "bui2024")(student, teacher, batch, {}) == pytest.approx(
        expected, rel=1e-9
    )
