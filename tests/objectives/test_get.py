"""Terms by name: options, refusals, and asking for exactly what is used."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from kdjax.config import ModelConfig
from kdjax.errors import InputError
from kdjax.objectives import FeatureNeeds, FeatureRequest, Term, get
from tests.objectives.examples import (
    STUDENT,
    TEACHER,
    WIDE,
    features,
    graded,
    packed,
    params_of,
    restricted,
)
from tests.objectives.terms import EXAMPLES


def layers(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


@pytest.mark.parametrize(
    ("name", "variant", "options", "complaint"),
    [
        ("relations", "original", {}, "unknown term 'relations' .did you mean 'relation'"),
        ("mlm", "orignal", {}, "mlm: unknown variant 'orignal' .did you mean 'original'"),
        ("cosine", "bui2024", {}, "cosine: unknown variant 'bui2024' .valid: original"),
        ("hidden_cls", "bui2024", {}, "unknown variant"),
        ("hidden_concat", "bui2024", {}, "unknown variant"),
        ("first_scores_mse", "original", {}, "unknown variant"),
        (
            "logit",
            "original",
            {"temprature": 2},
            "unknown option 'temprature'.*did you mean 'temperature'",
        ),
        (
            "logit",
            "bui2024",
            {"temperature": 2},
            "unknown option 'temperature' of variant bui2024 .it has none",
        ),
        (
            "logit",
            "original",
            {"temperature": 0},
            "logit: temperature is 0, expected a number above 0",
        ),
        ("logit", "original", {"temperature": "2"}, "logit: temperature is '2'"),
        ("logit", "original", {"temperature": float("inf")}, "temperature is inf"),
        (
            "logit",
            "original",
            {"temperature": {"points": [[0, 1], [1, 0]]}},
            "logit: temperature is 0 at 1 of the budget",
        ),
        (
            "logit",
            "original",
            {"positions": "valid"},
            "positions is 'valid', expected masked or all",
        ),
        (
            "attention_mse",
            "original",
            {"layers": "frist"},
            "attention_mse: layers: unknown map 'frist'",
        ),
        (
            "relation",
            "original",
            {"relation_heads": 2.5},
            "relation_heads is 2.5, expected a whole number",
        ),
        ("relation", "original", {"teacher_layer": -1}, "teacher_layer is -1"),
        ("relation", "original", {"query": -1.0}, "query is -1.0"),
        (
            "relation",
            "original",
            {"query": 0, "key": 0, "value": 0},
            "all 0, expected a weight above 0",
        ),
        ("attention_kl", "original", {"teacher_layer": True}, "teacher_layer is True"),
        ("pearson", "original", {"axes": "batch"}, "pearson: axes: unknown axis 'batch'"),
        ("pearson", "original", {"axes": "key,key"}, "expected different ones"),
        ("pearson", "original", {"axes": 3}, "axes is 3"),
    ],
)
def test_get_of_what_cannot_be_built_is_refused(
    name: str, variant: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        get(name, variant, **options)


def test_term_is_frozen_and_equals_another_of_the_same_options() -> None:
    term = get("attention_mse", layers=[[1, 2]])
    cooling = {"shape": "cosine", "points": [[0, 4], [1, 1]]}
    # Mappings of a recipe are made hashable: equal terms share a compiled program.
    assert hash(get("logit", temperature=cooling)) == hash(get("logit", temperature={**cooling}))
    assert get("logit", temperature=cooling).scheduled
    assert not get("logit", temperature=4).scheduled
    # Lists and tuples name the same layer pairs.
    assert term == get("attention_mse", layers=[(1, 2)])
    assert hash(term) == hash(get("attention_mse", layers=[[1, 2]]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        term.layers = "last"


@pytest.mark.parametrize("label", EXAMPLES)
def test_term_needs_what_its_equation_names(label: str) -> None:
    example = EXAMPLES[label]
    expected = FeatureNeeds(example.student, example.teacher)
    assert example.term.needs(STUDENT, TEACHER) == expected


def names_of(request: FeatureRequest) -> set[tuple[str, int]]:
    kinds = ("scores", "query", "key", "value", "hidden")
    asked = set()
    for kind in kinds:
        asked |= {(kind, n) for n in getattr(request, kind)}
    return asked | {(kind, 0) for kind in ("logits", "token_logits") if getattr(request, kind)}


@pytest.mark.parametrize("label", EXAMPLES)
def test_term_uses_all_it_needs_and_nothing_else(label: str, float64: None) -> None:
    term = EXAMPLES[label].term
    batch = packed()
    needs = term.needs(STUDENT, TEACHER)
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    params = params_of(term, STUDENT, TEACHER)
    # What a term does not ask for is taken away: it must give the same loss without it.
    alone = term(
        restricted(student, needs.student), restricted(teacher, needs.teacher), batch, params
    )
    among_others, gradients = graded(term)(student, teacher, batch, params)
    by_student, by_teacher, _ = gradients
    # A gradient tells which features the loss depends on: those asked for, and no others.
    assert np.isfinite(alone)
    assert alone == pytest.approx(float(among_others), rel=1e-12)
    for grads, request in ((by_student, needs.student), (by_teacher, needs.teacher)):
        used = set()
        for kind in ("scores", "query", "key", "value", "hidden"):
            used |= {(kind, n) for n, g in getattr(grads, kind).items() if np.any(g)}
        used |= {(kind, 0) for kind in ("logits", "token_logits") if np.any(getattr(grads, kind))}
        assert used == names_of(request)


@pytest.mark.parametrize(
    ("term", "student", "teacher", "complaint"),
    [
        (
            get("logit"),
            {},
            {"vocab_size": 13},
            "logit: the student has 11 vocabulary entries, the teacher 13",
        ),
        (get("logit", "bui2024"), {}, {"vocab_size": 13}, "vocabulary entries"),
        (get("logit", positions="all"), {}, {"vocab_size": 13}, "vocabulary entries"),
        (
            get("cosine"),
            {},
            {"width": 16},
            "cosine: the student has 8 hidden units, the teacher 16",
        ),
        (
            get("hidden_mse", "bui2024"),
            {},
            {"width": 16},
            "hidden_mse: the student has 8 hidden units",
        ),
        (
            get("attention_mse"),
            {},
            {"heads": 2},
            "attention_mse: the student has 4 heads, the teacher 2",
        ),
        (
            get("attention_mse", "bui2024"),
            {},
            {"heads": 2},
            "attention_mse: the student has 4 heads",
        ),
        (
            get("first_scores_mse", "bui2024"),
            {},
            {"heads": 2},
            "first_scores_mse: the student has 4 heads",
        ),
        (get("attention_kl"), {}, {"heads": 2}, "attention_kl: the student has 4 heads"),
        (get("value_relation"), {}, {"heads": 2}, "value_relation: the student has 4 heads"),
        (get("pearson"), {}, {"heads": 2}, "pearson: the student has 4 heads"),
        (get("pearson", axes="head"), {"heads": 1}, {"heads": 1}, "at least 2 heads"),
        (get("relation", "bui2024"), {}, {"heads": 2}, "relation: the student has 4 heads"),
        (
            get("relation", relation_heads=3),
            {},
            {},
            "relation_heads is 3, expected a divisor .* 8 .* 8",
        ),
        (get("relation", relation_heads=8), {}, {"width": 12}, "relation_heads is 8"),
        (
            get("relation", teacher_layer=5),
            {},
            {},
            "relation: layers: teacher layer 5, expected 1 to 4",
        ),
        (
            get("attention_mse"),
            {"layers": 3},
            {},
            "attention_mse: layers: 'uniform' between 3 student and 4",
        ),
        (
            get("hidden_mse", layers=[[1, 9]]),
            {},
            {},
            "hidden_mse: layers: teacher layer 9, expected 0 to 4",
        ),
    ],
)
def test_needs_of_models_that_do_not_fit_are_refused(
    term: Term, student: dict[str, int], teacher: dict[str, int], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as e:
        term.needs(dataclasses.replace(STUDENT, **student), dataclasses.replace(TEACHER, **teacher))
    # It ends up as one line on a terminal.
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("label", [label for label, example in EXAMPLES.items() if example.teacher])
def test_term_that_needs_a_teacher_refuses_to_go_without(label: str) -> None:
    term = EXAMPLES[label].term
    assert term.needs_teacher
    with pytest.raises(InputError, match="found no teacher"):
        term.needs(STUDENT, None)


def test_mlm_needs_no_teacher() -> None:
    assert not get("mlm").needs_teacher
    assert get("mlm").needs(STUDENT, None) == FeatureNeeds(
        FeatureRequest(logits=True), FeatureRequest()
    )


@pytest.mark.parametrize(
    ("name", "teacher", "shapes"),
    [
        ("mlm", TEACHER, {}),
        ("relation", WIDE, {}),
        ("hidden_mse", TEACHER, {"kernel": (8, 8), "bias": (8,)}),
        ("hidden_mse", WIDE, {"kernel": (8, 12), "bias": (12,)}),
        ("hidden_cls", TEACHER, {}),
        ("hidden_cls", WIDE, {"kernel": (8, 12), "bias": (12,)}),
        ("hidden_concat", WIDE, {"kernel": (16, 48), "bias": (48,)}),
    ],
)
def test_only_terms_with_projections_have_parameters(
    name: str, teacher: ModelConfig, shapes: dict[str, tuple[int, ...]]
) -> None:
    params = get(name).init(STUDENT, teacher, seed=3)
    assert {key: x.shape for key, x in params.items()} == shapes
    # Parameters depend on the seed alone.
    again = get(name).init(STUDENT, teacher, 3)
    otherwise = get(name).init(STUDENT, teacher, 4)
    for key in params:
        assert np.array_equal(params[key], again[key])
    # Where there are any, another seed gives others.
    assert not params or not np.array_equal(params["kernel"], otherwise["kernel"])


def test_mlm_refuses_features_without_logits() -> None:
    batch = packed()
    model_features = restricted(
        features(STUDENT, batch, 1, np.float32), FeatureRequest(hidden=layers(2))
    )
    with pytest.raises(InputError, match="features without logits"):
        get("mlm")(model_features, model_features, batch, {})
