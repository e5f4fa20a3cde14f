"""What holds for every term: padding and packing change nothing, gradients are right, numbers stay
finite."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.objectives import Features, Term, get
from tests.objectives.examples import (
    LENGTH,
    STUDENT,
    TEACHER,
    batch_of,
    features,
    graded,
    groups,
    packed,
    padded,
    params_of,
)
from tests.objectives.terms import EXAMPLES, MAPPED

TERMS = {label: example.term for label, example in EXAMPLES.items() if label not in MAPPED}
POSITIONAL = [
    label
    for label in TERMS
    if EXAMPLES[label].variant == "original" and not EXAMPLES[label].student.logits
]
"""Original terms that look at positions, not at slots."""
VECTORS = ("query", "key", "value")


def example(
    label: str, batch: dict[str, np.ndarray], dtype: Any
) -> tuple[Term, Features, Features, dict[str, Any]]:
    term = TERMS[label]
    student = features(STUDENT, batch, 1, dtype)
    teacher = features(TEACHER, batch, 2, dtype)
    return (
        term,
        student,
        teacher,
        params_of(term, STUDENT, TEACHER, jnp.promote_types(dtype, jnp.float32)),
    )


@pytest.mark.parametrize("label", TERMS)
def test_gradients_are_differences_of_the_loss(label: str, float64: None) -> None:
    """The slope is along a random direction of everything, by central differences."""
    batch = packed()
    term, *point = example(label, batch, np.float64)
    rng = np.random.default_rng(0)
    # One direction through features and parameters at once tests every partial derivative.
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), point)

    def loss(step: float) -> float:
        student, teacher, params = jax.tree.map(lambda x, d: x + step * d, point, direction)
        return float(graded(term)(student, teacher, batch, params)[0])

    # The same slope from the gradient that the optimizer would get.
    student, teacher, params = point
    _, grads = graded(term)(student, teacher, batch, params)
    slope = sum(
        np.sum(g * d)
        for g, d in zip(jax.tree.leaves(list(grads)), jax.tree.leaves(direction), strict=True)
    )
    # A slope near 0 would pass whatever the gradient is.
    assert abs(slope) > 1e-4
    assert slope == pytest.approx((loss(1e-5) - loss(-1e-5)) / 2e-5, rel=1e-6)


@pytest.mark.parametrize(
    "label", [label for label in TERMS if EXAMPLES[label].zero_if_equal and "layer" not in label]
)
def test_student_that_equals_its_teacher_has_no_loss_and_no_gradient(
    label: str, float64: None
) -> None:
    batch = packed()
    student = features(STUDENT, batch, 1)
    value, gradients = graded(TERMS[label])(student, student, batch, {})
    grads = gradients[0]
    # Against other features the loss is well above 0, so that the bound below says something.
    other_value, _ = graded(TERMS[label])(student, features(STUDENT, batch, 2), batch, {})
    assert abs(value) < 1e-12
    assert all(np.max(np.abs(g)) < 1e-12 for g in jax.tree.leaves(grads))
    assert other_value > 1e-3


def test_bui2024_logit_is_least_where_the_student_equals_its_teacher(
    float64: None,
) -> None:
    """The term is a cross-entropy, so that its least value is the teacher's entropy."""
    batch = packed()
    term = TERMS["logit bui2024"]
    student = features(STUDENT, batch, 1)
    value, gradients = graded(term)(student, student, batch, {})
    grads = gradients[0]
    # The loss is the entropy itself, so it is above 0 and no other student has less.
    assert 0 < value < graded(term)(student, features(STUDENT, batch, 2), batch, {})[0]
    assert np.max(np.abs(grads.logits)) < 1e-12


@pytest.mark.parametrize("name", ["hidden_mse", "hidden_concat"])
def test_term_with_a_projection_is_zero_where_the_projection_makes_them_equal(
    name: str, float64: None
) -> None:
    batch = packed()
    student = features(STUDENT, batch, 1)
    # The identity projects the student's states onto themselves.
    params = {
        key: jnp.eye(*x.shape) if x.ndim == 2 else 0 * x
        for key, x in get(name).init(STUDENT, STUDENT, 0).items()
    }
    assert abs(get(name)(student, student, batch, params)) < 1e-12
    assert get(name)(student, features(STUDENT, batch, 2), batch, params) > 1e-3


def disturbed(model_features: Features, batch: dict[str, np.ndarray], seed: int) -> Features:
    """Return other values wherever a padded position or another document is involved."""
    rng = np.random.default_rng(seed)
    valid = batch["valid"]
    ids = batch["segments"]
    # A score is inside if its row is a token and its column is one of the same document.
    inside = ((ids[:, :, None] == ids[:, None, :]) & valid[:, :, None])[:, None]

    def noise(x: jax.Array, where: np.ndarray) -> jax.Array:
        return jnp.where(where, x, 50 * rng.normal(size=x.shape))

    def noisy(tree: Any, where: np.ndarray) -> Any:
        return jax.tree.map(lambda x: noise(x, where), tree)

    return dataclasses.replace(
        model_features,
        scores=noisy(model_features.scores, inside),
        hidden=noisy(model_features.hidden, valid[..., None]),
        token_logits=noisy(model_features.token_logits, valid[..., None]),
        **{kind: noisy(getattr(model_features, kind), valid[:, None, :, None]) for kind in VECTORS},
    )


@pytest.mark.parametrize("label", POSITIONAL)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=2, deadline=None)
def test_loss_and_gradients_do_not_depend_on_padding_and_other_documents(
    label: str, seed: int
) -> None:
    with jax.enable_x64(True):
        batch = packed()
        term, student, teacher, params = example(label, batch, np.float64)
        # The pass over noise at padding and across documents has to give the same loss and
        # gradients.
        value, gradients = graded(term)(student, teacher, batch, params)
        other_value, other_gradients = graded(term)(
            disturbed(student, batch, seed), disturbed(teacher, batch, seed + 1), batch, params
        )
        grads = gradients[0]
        other_grads = other_gradients[0]
        assert value == pytest.approx(float(other_value), rel=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), grads, other_grads)
        # A gradient there would train on what is no text.
        padding = ~batch["valid"]
        assert not np.any(grads.token_logits[padding]), "token_logits"
        for n, g in grads.hidden.items():
            assert not np.any(g[padding]), f"hidden {n}"
        for kind in VECTORS:
            for n, g in getattr(grads, kind).items():
                # Vectors are [batch, head, position, width]: positions come second.
                assert not np.any(np.moveaxis(np.asarray(g), 1, 2)[padding]), f"{kind} {n}"
        # Scores are masked by row, the query, and by column, the key.
        for n, g in grads.scores.items():
            assert not np.any(np.moveaxis(np.asarray(g), 1, 3)[padding]), f"scores {n}, rows"
            assert not np.any(np.asarray(g).transpose(0, 3, 1, 2)[padding]), f"scores {n}, keys"


def repacked(model_features: Features, rows: list[list[tuple[int, np.ndarray]]]) -> Features:
    """Return the same documents at other places; what lies between documents is noise."""
    # Noise fills all places that no document is moved to.
    rng = np.random.default_rng(0)

    def move(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        old = np.asarray(x)
        shape = [LENGTH if axis in axes else n for axis, n in enumerate(old.shape)]
        new = rng.normal(size=(len(rows), *shape[1:]))
        for r, row in enumerate(rows):
            start = 0
            for b, at in row:
                here = np.arange(start, start + len(at))
                start += len(at)
                # Scores have two axes of positions, queries, keys and values one behind the heads,
                # and hidden states one.
                if axes == (2, 3):
                    new[r][:, here[:, None], here] = old[b][:, at[:, None], at]
                elif axes == (2,):
                    new[r][:, here] = old[b][:, at]
                else:
                    new[r][here] = old[b][at]
        return jnp.asarray(new)

    def moved(tree: Any, *axes: int) -> Any:
        return jax.tree.map(lambda x: move(x, axes), tree)

    return Features(
        scores=moved(model_features.scores, 2, 3),
        hidden=moved(model_features.hidden, 1),
        token_logits=moved(model_features.token_logits, 1),
        **{kind: moved(getattr(model_features, kind), 2) for kind in VECTORS},
    )


@pytest.mark.parametrize("label", POSITIONAL)
@given(order=st.permutations(range(6)), cuts=st.tuples(st.integers(0, 6), st.integers(0, 6)))
@settings(max_examples=3, deadline=None)
def test_loss_does_not_depend_on_how_documents_are_packed(
    label: str, order: list[int], cuts: tuple[int, int]
) -> None:
    with jax.enable_x64(True):
        batch = packed()
        term, student, teacher, params = example(label, batch, np.float64)
        # Six documents are dealt to three sequences: at the cuts, in a drawn order.
        documents = list(groups(batch))
        shuffled = [documents[i] for i in order]
        rows = [shuffled[start:stop] for start, stop in pairwise([0, *sorted(cuts), 6])]
        # Segments are numbered from 1 in each new sequence.
        segments = []
        for row in rows:
            lengths = [len(at) for _, at in row]
            segments.append(np.repeat(np.arange(1, len(row) + 1), lengths).tolist())
        # The terms compared see the same documents, so that only the layout can make a difference.
        before, _ = graded(term)(student, teacher, batch, params)
        after, _ = graded(term)(
            repacked(student, rows), repacked(teacher, rows), batch_of(segments), params
        )
        assert after == pytest.approx(float(before), rel=1e-12)


@pytest.mark.parametrize("label", TERMS)
def test_bfloat16_features_are_reduced_in_float32(label: str) -> None:
    batch = padded()
    term, student, teacher, params = example(label, batch, jnp.bfloat16)
    loss, grads = graded(term)(student, teacher, batch, params)
    assert loss.dtype == jnp.float32
    assert loss.shape == ()
    # Gradients come back in the features' type, for the backward pass.
    assert all(g.dtype == jnp.bfloat16 for g in jax.tree.leaves(grads[:2]))
    # The same values, widened beforehand, tell that nothing was summed in bfloat16.
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (student, teacher))
    assert loss == pytest.approx(float(graded(term)(*wide, batch, params)[0]), rel=1e-6)


@pytest.mark.parametrize("label", TERMS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=2, deadline=None)
def test_extreme_features_give_finite_losses_and_gradients(label: str, seed: int) -> None:
    # Padded keys are where a softmax of extreme scores meets masked ones.
    batch = padded()
    term, student, teacher, params = example(label, batch, np.float32)
    rng = np.random.default_rng(seed)

    # Relations square their vectors: ±100 makes scores of ±1e4.
    def extreme(features: Features) -> Features:
        def drawn(values: list[float], tree: Any) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(rng.choice(values, x.shape), x.dtype), tree)

        vectors = {kind: drawn([-1e2, 1e2], getattr(features, kind)) for kind in VECTORS}
        return dataclasses.replace(drawn([-1e4, 0, 1e4], features), **vectors)

    value, grads = graded(term)(extreme(student), extreme(teacher), batch, params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("label", TERMS)
def test_batch_of_padding_gives_finite_losses_and_no_gradient(label: str) -> None:
    batch = batch_of([[], [], []])
    batch["label_weights"][:] = 0
    term, student, teacher, params = example(label, batch, np.float32)
    value, grads = graded(term)(student, teacher, batch, params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))
    # The published code divides by the shape of the batch and keeps what padding adds.
    if "bui2024" not in label:
        assert value == 0
        assert not any(np.any(g) for g in jax.tree.leaves(grads))
