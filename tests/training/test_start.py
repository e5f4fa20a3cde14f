"""Student starts: which teacher layers they take, what is copied and cut, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import ModelConfig, ModelSpec, StartConfig
from kdjax.errors import InputError
from kdjax.models import Model, abstract_params, forward, init, zoo
from kdjax.models.features import FeatureRequest
from kdjax.training.starts.start import check_start, start_layers, start_params
from tests.support import tiny
from tests.training.starts import narrow, start, teacher

EVERYTHING = FeatureRequest(
    **{name: frozenset({1, 2}) for name in ("scores", "query", "key", "value")},
    hidden=frozenset({0, 1, 2}),
    logits=True,
    token_logits=True,
)


ROTARY = dataclasses.replace(tiny.TEACHER, positions="rotary")


def assert_equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for leaf_a, leaf_b in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(leaf_a, leaf_b)


def test_random_start_is_bert_init_of_seed() -> None:
    # Neither a teacher that is there nor one that is not makes a difference.
    assert_equal(start_params(StartConfig(), tiny.STUDENT, None, 4), tiny.params(tiny.STUDENT, 4))
    assert_equal(
        start_params(StartConfig(), tiny.STUDENT, teacher(), 4), tiny.params(tiny.STUDENT, 4)
    )


def test_lower_start_of_equal_width_is_bottom_of_teacher() -> None:
    student = narrow()
    params = start(student, teacher(), "lower")
    # The lowest layers compute what the teacher's do, bit for bit.
    asked = FeatureRequest(hidden=frozenset({0, 1, 2}))
    student_hidden = forward(student, params, tiny.batch(), asked).hidden
    its = forward(tiny.TEACHER, teacher().params, tiny.batch(), asked).hidden
    for layer in range(3):
        np.testing.assert_array_equal(student_hidden[layer], its[layer])


@pytest.mark.parametrize(
    ("layers", "source_layers"),
    [
        ("uniform", (2, 4)),
        ("spread", (1, 4)),
        ("lower", (1, 2)),
        ("upper", (3, 4)),
        ((4, 1), (4, 1)),
    ],
)
def test_start_copies_layers_by_rule(layers: Any, source_layers: tuple[int, int]) -> None:
    teacher_params = teacher().params
    params = start(narrow(), teacher(), layers)
    # What is not layers is taken whole.
    assert_equal(params["embeddings"], teacher_params["embeddings"])
    assert_equal(params["mlm"], teacher_params["mlm"])
    assert list(params["layers"]) == ["1", "2"]
    for layer, source in zip(("1", "2"), source_layers, strict=True):
        assert_equal(params["layers"][layer], teacher_params["layers"][str(source)])


def test_spread_start_takes_layers_of_distilbert() -> None:
    twelve = dataclasses.replace(tiny.TEACHER, layers=12)
    six = dataclasses.replace(twelve, layers=6)
    assert start_layers(StartConfig("teacher", "spread"), six, twelve) == (1, 3, 5, 8, 10, 12)


@pytest.mark.parametrize("student", [narrow(), narrow(width=16)], ids=["equal width", "narrower"])
def test_start_without_teacher_head_inits_head_from_seed(student: ModelConfig) -> None:
    headless = teacher()._replace(
        params={name: part for name, part in teacher().params.items() if name != "mlm"}
    )
    params = start(student, headless, seed=7)
    assert_equal(params["mlm"], tiny.params(student, 7)["mlm"])
    # The rest does not depend on the seed.
    rest = start(student, teacher(), seed=8)
    assert_equal({**params, "mlm": None}, {**rest, "mlm": None})


def test_start_with_fewer_positions_and_types_takes_first() -> None:
    teacher_tables = teacher().params["embeddings"]
    tables = start(narrow(max_positions=9, type_vocab_size=1), teacher())["embeddings"]
    assert_equal(tables["position"]["embedding"], teacher_tables["position"]["embedding"][:9])
    assert_equal(tables["type"]["embedding"], teacher_tables["type"]["embedding"][:1])


@pytest.mark.parametrize(
    ("changes", "of"),
    [
        ({"width": 16}, {}),
        ({"width": 12, "heads": 1, "ffn": 20}, {}),
        ({"ffn": 20}, {}),
        ({"width": 8, "heads": 4, "max_positions": 13, "type_vocab_size": 1}, {"heads": 4}),
        ({"width": 16}, {"norm": "pre"}),
        ({"width": 16}, {"norm": "pre", "embedding_norm": False, "gelu": "tanh"}),
    ],
)
def test_start_of_smaller_student_is_whole_finite_and_deterministic(
    changes: dict[str, Any], of: dict[str, Any]
) -> None:
    student = narrow(teacher(**of).config, **changes)
    params = start(student, teacher(**of))
    # The tree of a model that was made from scratch: nothing more, nothing less.
    wanted = abstract_params(student)
    assert jax.tree.structure(params) == jax.tree.structure(wanted)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(params)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(wanted)
    ]
    # The seed has no part in a start from a teacher.
    assert_equal(params, start(student, teacher(**of), seed=3))
    # All features are finite: four kinds of two layers, three hidden states, two of logits.
    features = jax.jit(lambda p: forward(student, p, tiny.batch(), EVERYTHING))(params)
    assert len(jax.tree.leaves(features)) == 4 * 2 + 3 + 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(features))


def test_start_leaves_teacher_unchanged() -> None:
    before = jax.tree.map(np.copy, teacher().params)
    start(narrow(width=16, max_positions=9), teacher())
    assert_equal(teacher().params, before)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"width": 32}, "the student's width is 32, expected at most its 24"),
        ({"width": 15, "heads": 3}, "the student's heads is 3, expected at most its 2"),
        ({"width": 16, "heads": 1}, "the student's head_width is 16, expected at most its 12"),
        ({"ffn": 49}, "the student's ffn is 49, expected at most its 48"),
        ({"max_positions": 25}, "the student's max_positions is 25, expected at most its 24"),
        ({"type_vocab_size": 3}, "the student's type_vocab_size is 3, expected at most its 2"),
        ({"vocab_size": 52}, "the student's vocab_size is 52, expected its 53"),
        ({"norm": "pre"}, "the student's norm is pre, expected its post"),
        ({"embedding_norm": False}, "the student's embedding_norm is False, expected its True"),
        ({"gelu": "tanh"}, "the student's gelu is tanh, expected its exact"),
        ({"positions": "rotary"}, "the student's positions is rotary, expected its learned"),
    ],
)
def test_start_from_unlike_teacher_is_refused(changes: dict[str, Any], complaint: str) -> None:
    student = narrow(**changes)
    # The check that comes before anything is compiled, then the start itself.
    with pytest.raises(InputError, match=rf"\Astart from the teacher: {complaint}\Z"):
        check_start(StartConfig("teacher"), student, tiny.TEACHER)
    with pytest.raises(InputError, match=complaint):
        start(student, teacher())
    # A random start compares nothing.
    check_start(StartConfig(), student, tiny.TEACHER)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"positions": "learned"}, "the student's positions is learned, expected its rotary"),
        ({"rotary_base": 100.0}, "the student's rotary_base is 100.0, expected its 10000.0"),
        ({"width": 16}, "the student's head_width is 8, expected its 12"),
    ],
)
def test_start_from_other_rotation_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=rf"\Astart from the teacher: {complaint}\Z"):
        check_start(StartConfig("teacher"), narrow(ROTARY, **changes), ROTARY)


def test_rotary_start_has_no_position_table_and_any_length() -> None:
    model = Model(ROTARY, tiny.params(ROTARY, 3))
    params = start(narrow(ROTARY, max_positions=99), model)
    assert_equal(params["embeddings"], model.params["embeddings"])
    # There is no table to cut, so more positions are no obstacle.
    assert set(params["embeddings"]) == {"word", "type", "norm"}


def test_narrower_rotary_start_keeps_head_coordinates() -> None:
    """Other coordinates would turn at other speeds."""
    model = Model(ROTARY, tiny.params(ROTARY, 3))
    params = start(narrow(ROTARY, width=12, heads=1), model)
    word = np.asarray(model.params["embeddings"]["word"]["embedding"], np.float64)
    # The basis is read off the word tables.
    basis = np.linalg.lstsq(word, params["embeddings"]["word"]["embedding"], rcond=None)[0]
    for layer in ("1", "2"):
        for name in ("query", "key"):
            kernel = params["layers"][layer]["attention"][name]["kernel"]
            # The student's one head is one of the teacher's two, in the student's basis.
            its = np.split(
                basis.T @ model.params["layers"][layer]["attention"][name]["kernel"], 2, axis=1
            )
            assert min(np.abs(kernel - head).max() for head in its) < 1e-5


@pytest.mark.parametrize(
    ("layers", "student", "complaint"),
    [
        ("last", 2, "start.layers: unknown rule 'last'"),
        ("unifrom", 2, "start.layers: unknown rule 'unifrom' (did you mean 'uniform'?)"),
        ("uniform", 3, "start.layers: 'uniform' between 3 student and 4 teacher layers"),
        ("upper", 5, "start.layers: 'upper' from 4 teacher layers to 5"),
        ((1, 2, 3), 2, "start.layers names 3 layers, expected one for each of the student's 2"),
        ((), 2, "start.layers names 0 layers, expected one for each of the student's 2"),
        ((1, 5), 2, "start.layers: teacher layer 5, expected 1 to 4"),
        ((0, 1), 2, "start.layers: teacher layer 0, expected 1 to 4"),
    ],
)
def test_start_from_missing_layers_is_refused(layers: Any, student: int, complaint: str) -> None:
    config = StartConfig("teacher", layers)
    model_config = dataclasses.replace(tiny.TEACHER, layers=student)
    for refuse in (start_layers, check_start):
        with pytest.raises(InputError) as refused:
            refuse(config, model_config, tiny.TEACHER)
        assert str(refused.value).startswith(complaint)


def test_start_without_teacher_is_refused() -> None:
    with pytest.raises(InputError, match=r"\Astart.source is 'teacher', expected a teacher\Z"):
        check_start(StartConfig("teacher"), tiny.STUDENT, None)
    with pytest.raises(InputError, match="expected a teacher"):
        start_params(StartConfig("teacher"), tiny.STUDENT, None, 0)


MODERN = zoo.resolve(
    ModelSpec(
        family="modernbert",
        layers=4,
        width=16,
        heads=2,
        ffn=24,
        vocab_size=40,
        max_positions=16,
        attention_window=4,
        global_every=2,
    )
)


def test_start_of_modernbert_takes_layers_of_its_own_kind_whole() -> None:
    whole = init(MODERN, 3)
    student = dataclasses.replace(MODERN, layers=2)
    config = StartConfig(source="teacher", layers="lower")
    params = start_params(config, student, whole, 0)
    taken = {n: whole.params["layers"][n] for n in ("1", "2")}
    jax.tree.map(np.testing.assert_array_equal, params["layers"], taken)
    shapes = jax.tree.map(np.shape, params)
    assert shapes == jax.tree.map(np.shape, init(student, 0).params)


@pytest.mark.parametrize(
    ("changes", "layers", "complaint"),
    [
        ({"layers": 2}, (1, 3), "layer 2 of the student sees 2 positions to either side, the teac"),
        ({"layers": 3}, (1, 2, 1), "layer 3 of the student from the teacher's 1, expected layer 1"),
        ({"width": 8, "heads": 1}, (1, 2, 3, 4), "the student is narrower, expected its width"),
        ({"linear_bias": True}, (1, 2, 3, 4), "linear_bias is True, expected its False"),
    ],
)
def test_start_of_modernbert_from_layers_of_another_kind_is_refused(
    changes: dict[str, Any], layers: tuple[int, ...], complaint: str
) -> None:
    student = dataclasses.replace(MODERN, **changes)
    with pytest.raises(InputError, match=complaint):
        check_start(StartConfig(source="teacher", layers=layers), student, MODERN)


def test_start_without_token_types_computes_what_the_teacher_does_of_the_first_type() -> None:
    whole = teacher()
    settings = {"family": "distilbert", "type_vocab_size": 0, "dropout_sites": "distilbert"}
    student = dataclasses.replace(whole.config, **settings)
    params = start_params(StartConfig(source="teacher"), student, whole, 0)
    batch = {
        "tokens": np.array([[3, 1, 4, 1, 5]], np.int32),
        "segments": np.ones((1, 5), np.int32),
        "positions": np.arange(5, dtype=np.int32)[None],
    }
    request = FeatureRequest(hidden=frozenset({0, 1}))
    want = forward(*whole, batch, request).hidden
    got = forward(student, params, batch, request).hidden
    for layer in (0, 1):
        np.testing.assert_allclose(got[layer], want[layer], rtol=0, atol=1e-5)
