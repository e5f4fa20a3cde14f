"""Terms over aligned words, against loops over words and their tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.models.features import FeatureRequest
from kdjax.objectives import Features, get, term
from kdjax.objectives.objective import Objective
from kdjax.objectives.over_words import OverWords, over_words
from kdjax.objectives.reductions import word_means
from tests.objectives.examples import (
    LENGTH,
    STUDENT,
    TEACHER,
    WIDE,
    features,
    packed,
    padded,
    params_of,
)

MakeBatch = Callable[[], dict[str, np.ndarray]]
TERMS = ("hidden_mse", "cosine", "hidden_cls", "hidden_concat")


def with_words(batch: dict[str, np.ndarray], seed: int = 3) -> dict[str, np.ndarray]:
    """Draw where words begin; a segment's first token always begins one."""
    rng = np.random.default_rng(seed)
    segments = batch["segments"]
    begins = rng.random(segments.shape) < 0.5
    begins |= np.diff(segments, axis=1, prepend=-1) != 0
    words = (np.cumsum(begins, axis=1) * (segments > 0)).astype(np.int32)
    word_segments = np.zeros_like(segments)
    for row, column in np.argwhere(words > 0):
        word_segments[row, words[row, column] - 1] = segments[row, column]
    return {**batch, "words": words, "word_segments": word_segments}


def means(x: np.ndarray, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Average the vectors of each word's tokens."""
    result = np.zeros_like(x)
    for row, words in enumerate(batch["words"]):
        for word in range(1, words.max() + 1):
            result[row, word - 1] = np.mean(x[row, words == word], axis=0)
    return result


@pytest.mark.parametrize(
    ("name", "make"), [*((name, packed) for name in TERMS), ("hidden_mse", padded)]
)
def test_term_over_words_equals_term_of_their_means(
    name: str, make: MakeBatch, float64: None
) -> None:
    batch = with_words(make())
    plain = get(name)
    teacher_config = TEACHER if name == "cosine" else WIDE
    student = features(STUDENT, batch, 1)
    teacher = features(teacher_config, batch, 2)
    params = params_of(plain, STUDENT, teacher_config)
    averaged = {layer: means(np.asarray(x), batch) for layer, x in student.hidden.items()}
    words = {**batch, "segments": batch["word_segments"], "valid": batch["word_segments"] > 0}
    expected = plain(Features(hidden=averaged), teacher, words, params)
    actual = OverWords(plain)(student, teacher, batch, params)
    assert actual == pytest.approx(float(expected), rel=1e-12)
    assert OverWords(plain).normalizer(batch) == plain.normalizer(words)


@pytest.mark.parametrize("name", ["hidden_mse", "cosine"])
def test_term_over_words_of_one_token_is_the_term(name: str, float64: None) -> None:
    batch = packed()
    valid = batch["valid"]
    words = np.where(valid, np.arange(1, LENGTH + 1), 0).astype(np.int32)
    batch |= {"words": words, "word_segments": batch["segments"]}
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    params = params_of(get(name), STUDENT, TEACHER)
    assert OverWords(get(name))(student, teacher, batch, params) == pytest.approx(
        float(get(name)(student, teacher, batch, params)), rel=1e-12
    )


def test_means_ignore_what_padding_holds() -> None:
    x = np.array([[[1.0, 2.0], [3.0, 6.0], [5.0, 5.0], [np.nan, np.inf]]], np.float32)
    words = np.array([[1, 1, 2, 0]])
    averaged = word_means(jnp.asarray(x), jnp.asarray(words), 3)
    assert averaged.tolist() == [[[2.0, 4.0], [5.0, 5.0], [0.0, 0.0]]]


@term(
    student=lambda model: FeatureRequest(hidden=frozenset({model.layers})),
    teacher=lambda model: FeatureRequest(hidden=frozenset({1}), scores=frozenset({1})),
)
def looks_at_scores(student: Any, teacher: Any, batch: Any, params: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "logit",
            {},
            r"logit: asks for logits under data\.teacher_tokenizer, expected a term over",
        ),
        ("logit", {"positions": "all"}, "logit: asks for token logits"),
        ("attention_mse", {}, "attention_mse: asks for scores.*attention is between tokens"),
        ("attention_kl", {}, "attention_kl: asks for scores"),
        ("pearson", {}, "pearson: asks for scores"),
        ("relation", {}, "relation: asks for query.*means of several tokens are shorter"),
        ("value_relation", {}, "value_relation: asks for value"),
        ("hidden_mse", {"variant": "bui2024"}, "hidden_mse: variant bui2024 compares padding"),
        (f"{__name__}:looks_at_scores", {}, "looks_at_scores: asks for scores"),
    ],
)
def test_term_that_is_not_of_hidden_states_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        OverWords(get(name, **options)).needs(STUDENT, WIDE)


def test_objective_over_words_leaves_terms_without_a_teacher_as_they_are() -> None:
    mlm = get("mlm")
    hidden = get("hidden_mse", layers="last")
    objective = over_words(Objective((("mlm", 1.0, mlm), ("hidden_mse", 0.5, hidden))))
    assert objective.terms == (("mlm", 1.0, mlm), ("hidden_mse", 0.5, OverWords(hidden)))
    assert objective.needs(STUDENT, WIDE).teacher == hidden.needs(STUDENT, WIDE).teacher
    # What it learns is the term's own.
    expected = {"hidden_mse": hidden.init(STUDENT, WIDE, 4)}
    assert objective.init(STUDENT, WIDE, 4).keys() == expected.keys()
