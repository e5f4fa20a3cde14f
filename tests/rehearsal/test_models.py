"""Smaller models keep what holds between a recipe's."""

from __future__ import annotations

import pytest

from kdjax.config import ModelConfig, ModelSpec
from kdjax.models import zoo
from kdjax.rehearsal.models import SmallerModels


def small(student: str, teacher: str) -> SmallerModels:
    return SmallerModels(zoo.get(student), zoo.get(teacher))


def resolved(models: SmallerModels, model: ModelConfig) -> ModelConfig:
    return zoo.resolve(ModelSpec(**models.sizes(model)))


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        ("6x768", "base", (2, 4)),
        ("12x1024", "large", (2, 4)),
        ("4x128", "6x128", (2, 3)),
        ("12x768", "base", (2, 2)),
        ("1x64", "12x64", (1, 2)),
        ("4x128", "2x128", (2, 1)),
    ],
)
def test_teachers_layers_stay_a_whole_multiple_equal_more_or_fewer(
    student: str, teacher: str, layers: tuple[int, int]
) -> None:
    models = small(student, teacher)
    assert (models.student_layers, models.teacher_layers) == layers


def test_equal_widths_stay_equal_and_larger_ones_larger() -> None:
    same = small("6x768", "base")
    assert same.width(768) == 32
    wider = small("6x384", "large")
    assert (wider.width(384), wider.width(1024)) == (32, 64)


def test_heads_stay_as_wide_as_each_other_or_as_many() -> None:
    # Heads of 64 in both: 6 and 16 of them.
    wider = small("6x384", "large")
    assert resolved(wider, wider.student).head_width == resolved(wider, wider.teacher).head_width
    # Of MiniLM's six layers heads are 32 wide, and there are 12, as in BERT-base.
    as_many = small("minilm-l6", "base")
    assert resolved(as_many, as_many.student).heads == resolved(as_many, as_many.teacher).heads


def test_gated_feed_forward_keeps_its_share_of_the_width() -> None:
    models = small("6x768", "modernbert-base")
    assert models.sizes(models.teacher)["ffn"] == 48


def test_named_layers_become_layers_that_are_there() -> None:
    models = small("6x768", "base")
    student = models.student
    assert models.pairs([[3, 6], [6, 12]], student) == [[1, 2], [2, 4]]
    # Two that come to the same are one; embeddings stay.
    assert models.pairs([[0, 0], [1, 1], [2, 2], [6, 12]], student) == [[0, 0], [1, 1], [2, 4]]
    assert models.start_layers((1, 3, 5, 8, 10, 12), student) == (2, 4)
    # A student of half as many layers has half as many here.
    assert models.start_layers((4, 8, 12), zoo.get("3x768")) == (4,)
    assert models.teacher_layer(0) == 0


@pytest.mark.parametrize(("before", "after"), [(12, 2), (48, 16), (1, 1), (6, 4)])
def test_relation_heads_divide_every_width(before: int, after: int) -> None:
    models = small("6x768", "base")
    assert models.relation_heads(before) == after
    assert 32 % after == 0
