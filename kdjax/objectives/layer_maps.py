"""Layer maps: which teacher layer each student layer learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from kdjax.errors import InputError, nearest

Pairs = tuple[tuple[int, int], ...]
LayerMap = str | Pairs
"""The name of a rule, or pairs (student layer, teacher layer) written out."""

RULES = ("last", "uniform", "spread", "lower", "upper")


def read_map(layers: Any) -> LayerMap:
    """Read a layer map from a recipe: a rule's name or a list of [student, teacher] pairs.

    Raises:
        InputError: it is neither.
    """
    if isinstance(layers, str):
        if layers not in RULES:
            raise InputError(f"layers: unknown map {layers!r}{nearest(layers, RULES)}")
        return layers
    if isinstance(layers, (list, tuple)) and layers and all(_is_pair(pair) for pair in layers):
        return tuple((pair[0], pair[1]) for pair in layers)
    raise InputError(
        f"layers: found {layers!r}, expected {', '.join(RULES)} or a list of [student, teacher] "
        "pairs"
    )


def pairs(layers: LayerMap, student: int, teacher: int, *, embeddings: bool = False) -> Pairs:
    """Return the pairs (student layer, teacher layer) of a map.

    With n_s student and n_t teacher layers, student layer m = 1…n_s learns from teacher layer:
    `uniform` m·n_t/n_s, n_t/n_s whole; `lower` m; `upper` m + n_t - n_s (the three mapping
    functions of TinyBERT, Jiao et al. 2020, arXiv 1909.10351); `spread` evenly from 1 to n_t,
    rounded (1, 3, 5, 8, 10, 12 of twelve: DistilBERT, Sanh et al. 2019, arXiv 1910.01108). `last`
    pairs the two last layers alone.

    Args:
        layers: layer map from `read_map`.
        student: n_s. When a term is called, the largest layer among the student's features.
        teacher: n_t, or the largest layer among the teacher's features. `lower` asks for no more
            than n_s of them.
        embeddings: whether there is a layer 0 (hidden states: the embedding output). Then all rules
            but `last` also pair 0 with 0.

    Raises:
        InputError: a layer that is not there.

    Example:
        >>> pairs("uniform", 2, 4)
        ((1, 2), (2, 4))
        >>> pairs("upper", 2, 4, embeddings=True)
        ((0, 0), (1, 3), (2, 4))
    """
    # Pairs written out.
    if not isinstance(layers, str):
        lowest = 0 if embeddings else 1
        for student_layer, teacher_layer in layers:
            _check_exists("student", student_layer, lowest, student)
            _check_exists("teacher", teacher_layer, lowest, teacher)
        return layers
    # A rule: the last layer alone, or every student layer.
    if layers == "last":
        return ((student, teacher),)
    if layers == "uniform" and teacher % student:
        raise InputError(
            f"layers: 'uniform' between {student} student and {teacher} teacher layers, expected a "
            "whole multiple in the teacher"
        )
    if teacher < student:
        raise InputError(
            f"layers: {layers!r} from {teacher} teacher layers to {student}, expected at least as "
            "many"
        )
    mapped = tuple(enumerate(_mapped(layers, student, teacher), start=1))
    if embeddings:
        return ((0, 0), *mapped)
    return mapped


def _mapped(rule: str, student: int, teacher: int) -> list[int]:
    """Return the teacher layer of each student layer by a rule."""
    student_layers = range(1, student + 1)
    if rule == "uniform":
        return [m * (teacher // student) for m in student_layers]
    if rule == "lower":
        return list(student_layers)
    if rule == "upper":
        return [m + teacher - student for m in student_layers]
    # Evenly from 1 to the last; a single layer is the last one.
    if student == 1:
        return [teacher]
    return [round(1 + (m - 1) * (teacher - 1) / (student - 1)) for m in student_layers]


def last_pair(teacher_layer: int, student: int, teacher: int) -> tuple[int, int]:
    """Return the student's last layer and the teacher's last, or a named one.

    Args:
        teacher_layer: the named layer; 0 is the last.
        student: the number of the student's last layer, as for `pairs`.
        teacher: the number of the teacher's last layer.

    Raises:
        InputError: a layer that is not there.

    Example:
        >>> last_pair(0, 6, 12), last_pair(10, 6, 12)
        ((6, 12), (6, 10))
    """
    if teacher_layer:
        _check_exists("teacher", teacher_layer, 1, teacher)
    return student, teacher_layer or teacher


def last(by_layer: Mapping[int, jax.Array]) -> jax.Array:
    """Return the feature of the highest layer there is, which is the last one (`Term`)."""
    return by_layer[max(by_layer)]


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(isinstance(layer, int) and not isinstance(layer, bool) for layer in pair)
    )


def _check_exists(whose: str, layer: int, lowest: int, highest: int) -> None:
    if not lowest <= layer <= highest:
        raise InputError(f"layers: {whose} layer {layer}, expected {lowest} to {highest}")
