"""Layer maps: which teacher layer a student layer learns from, and which maps are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from kdjax.errors import InputError
from kdjax.objectives.layer_maps import last_pair, pairs, read_map
from tests.support.doctests import check_example


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "expected"),
    [
        ("last", 3, 12, ((3, 12),)),
        ("uniform", 3, 12, ((1, 4), (2, 8), (3, 12))),
        ("uniform", 4, 4, ((1, 1), (2, 2), (3, 3), (4, 4))),
        ("lower", 3, 12, ((1, 1), (2, 2), (3, 3))),
        ("upper", 3, 12, ((1, 10), (2, 11), (3, 12))),
        ("spread", 6, 12, ((1, 1), (2, 3), (3, 5), (4, 8), (5, 10), (6, 12))),
        ("spread", 3, 3, ((1, 1), (2, 2), (3, 3))),
        ("spread", 1, 12, ((1, 12),)),
        ([[1, 7], [3, 2]], 3, 12, ((1, 7), (3, 2))),
    ],
)
def test_pairs_of_attention_layers_follow_the_rule(
    layers: Any, student: int, teacher: int, expected: Any
) -> None:
    assert pairs(read_map(layers), student, teacher) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("last", ((2, 6),)),
        ("uniform", ((0, 0), (1, 3), (2, 6))),
        ("lower", ((0, 0), (1, 1), (2, 2))),
        ("upper", ((0, 0), (1, 5), (2, 6))),
        ("spread", ((0, 0), (1, 1), (2, 6))),
        ([[0, 6]], ((0, 6),)),
    ],
)
def test_pairs_of_hidden_states_begin_with_the_embeddings(layers: Any, expected: Any) -> None:
    assert pairs(read_map(layers), 2, 6, embeddings=True) == expected


@pytest.mark.parametrize("student", range(2, 13))
def test_spread_pairs_are_even_and_take_no_layer_twice(student: int) -> None:
    for teacher in range(student, 25):
        teacher_layers = [teacher_layer for _, teacher_layer in pairs("spread", student, teacher)]
        # Layers lie as evenly as whole numbers can: within half a layer of the even spacing.
        gap = (teacher - 1) / (student - 1)
        assert teacher_layers[0] == 1
        assert teacher_layers[-1] == teacher
        assert all(a < b for a, b in pairwise(teacher_layers))
        assert all(abs(layer - (1 + n * gap)) <= 0.5 for n, layer in enumerate(teacher_layers))


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "complaint"),
    [
        ("uniform", 5, 12, "whole multiple"),
        ("uniform", 4, 2, "whole multiple"),
        ("lower", 4, 2, "at least as many"),
        ("upper", 4, 2, "at least as many"),
        ("spread", 4, 2, "'spread' from 2 teacher layers to 4, expected at least as many"),
        ([[4, 1]], 3, 12, "student layer 4, expected 1 to 3"),
        ([[1, 13]], 3, 12, "teacher layer 13, expected 1 to 12"),
        ([[0, 1]], 3, 12, "student layer 0, expected 1 to 3"),
        ([[1, -1]], 3, 12, "teacher layer -1"),
    ],
)
def test_pairs_with_a_missing_layer_are_refused(
    layers: Any, student: int, teacher: int, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        pairs(read_map(layers), student, teacher)


@pytest.mark.parametrize(
    "layers", ["unifrom", "", 3, [], [[1]], [[1, 2, 3]], [["1", "2"]], [[1.0, 2.0]], [[True, 1]]]
)
def test_read_map_of_no_map_is_refused(layers: Any) -> None:
    with pytest.raises(InputError, match=r"^layers: "):
        read_map(layers)


def test_read_map_of_a_misspelt_rule_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        read_map("unifrom")


def test_last_pair_takes_the_teachers_last_layer_or_a_named_one() -> None:
    assert last_pair(0, 6, 24) == (6, 24)
    assert last_pair(21, 6, 24) == (6, 21)
    with pytest.raises(InputError, match="teacher layer 25, expected 1 to 24"):
        last_pair(25, 6, 24)


@pytest.mark.parametrize("documented", [pairs, last_pair])
def test_example_of_a_layer_map_prints_what_it_says(documented: Any) -> None:
    check_example(documented, {documented.__name__: documented})
