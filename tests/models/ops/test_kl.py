"""KL divergence beside JAX's softmax and Optax's KL, in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from kdjax.models import ops
from kdjax.models.ops.dispatch import trace_reference
from tests.models.ops.distributions import SHAPE, SIZES, assert_same, scores
from tests.models.ops.examples import differentiated

pytestmark = pytest.mark.usefixtures("float64")

WHERE = {
    "everywhere": None,
    "some entries": np.arange(7) != 3,
    "other entries of each row": np.tril(np.ones((4, 7), bool)),
    "of one distribution nothing": (np.arange(4) > 0)[:, None] & np.ones(7, bool),
}


def plain(student: jax.Array, teacher: jax.Array, where: np.ndarray | None) -> jax.Array:
    """Compute KL from JAX's softmax, over the entries that are there."""
    if where is not None:
        student = jnp.where(where, student, -1e30)
        teacher = jnp.where(where, teacher, -1e30)
    student_log_probs = jax.nn.log_softmax(student)
    teacher_log_probs = jax.nn.log_softmax(teacher)
    return jnp.sum(jnp.exp(teacher_log_probs) * (teacher_log_probs - student_log_probs), axis=-1)


@pytest.mark.parametrize("label", WHERE)
@pytest.mark.parametrize("size", SIZES)
def test_kl_and_both_gradients_are_those_of_plain_jax(size: float, label: str) -> None:
    where = WHERE[label]
    pair = (scores(0, size), scores(1, size))
    assert_same(
        differentiated(lambda *pair: ops.kl(*pair, where), *pair),
        differentiated(lambda *pair: plain(*pair, where), *pair),
    )


def test_kl_equals_that_of_optax() -> None:
    student = scores(0)
    teacher = scores(1)
    want = optax.losses.kl_divergence_with_log_targets(
        log_softmax(student, -1), log_softmax(teacher, -1)
    )
    np.testing.assert_allclose(ops.kl(student, teacher), want, rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_reference_and_optimized_losses_are_the_same(size: float) -> None:
    pair = (scores(0, size), scores(1, size))
    labels = jnp.zeros(SHAPE[:2], int)
    where = WHERE["other entries of each row"]

    def both_losses(student: jax.Array, teacher: jax.Array) -> jax.Array:
        return ops.cross_entropy(student, labels) + ops.kl(student, teacher, where)

    # Both forms are differentiated by themselves: neither sees the other's gradient.
    optimized = differentiated(both_losses, *pair)
    with trace_reference():
        assert_same(optimized, differentiated(both_losses, *pair))


def test_kl_outside_where_gives_no_gradient_whatever_the_scores_hold() -> None:
    """Scores that are NaN beyond `where` stand for padding."""
    where = WHERE["other entries of each row"]
    student = jnp.where(where, scores(0), jnp.nan)
    teacher = jnp.where(where, scores(1), jnp.nan)
    value, grads = differentiated(lambda *pair: ops.kl(*pair, where), student, teacher)
    assert np.isfinite(value).all()
    # A distribution of one entry is 1 whatever its score: no gradient either.
    single = where.sum(-1) == 1
    for grad in grads:
        np.testing.assert_array_equal(grad == 0, ~np.broadcast_to(where, SHAPE) | single[:, None])


def test_kl_of_half_precision_is_float32_with_gradients_of_the_scores_type() -> None:
    student = scores(0).astype(jnp.bfloat16)
    teacher = scores(1).astype(jnp.bfloat16)
    value, grads = differentiated(ops.kl, student, teacher)
    assert value.dtype == jnp.float32
    assert [grad.dtype for grad in grads] == [jnp.bfloat16] * 2
