"""Losses over distributions, differentiated by hand, beside JAX's own and Optax's, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax

from kdjax.models.reference import reference
from kdjax.objectives import reductions
from kdjax.objectives.reductions import cross_entropy, kl_of_scores

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (3, 4, 7)
SIZES = [1.0, 1e4]


def drawn(seed: int, size: float = 1.0) -> jax.Array:
    return jnp.asarray(size * np.random.default_rng(seed).normal(size=SHAPE))


def differentiated(
    function: Callable[..., jax.Array], *args: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Values, and gradients of a sum that weighs every value differently."""
    made, pull = jax.vjp(function, *args)
    return made, pull(jnp.cos(jnp.arange(made.size)).reshape(made.shape).astype(made.dtype))


def same(got: Any, want: Any) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype == jnp.float64 and np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("device", ["cpu", "tpu"])
@pytest.mark.parametrize("size", SIZES)
def test_cross_entropy_is_optaxs(monkeypatch: pytest.MonkeyPatch, size: float, device: str) -> None:
    """On TPUs the label's logit is found by another program."""
    monkeypatch.setattr(reductions, "platform", lambda: device)
    logits = drawn(0, size)
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 7, SHAPE[:2]))
    same(
        differentiated(lambda logits: cross_entropy(logits, labels), logits),
        differentiated(
            lambda logits: optax.softmax_cross_entropy_with_integer_labels(logits, labels), logits
        ),
    )


WHERE = {
    "everywhere": None,
    "some entries": jnp.asarray(np.arange(7) != 3),
    "other entries of each row": jnp.asarray(np.tril(np.ones((4, 7), bool))),
    "of one distribution nothing": jnp.asarray((np.arange(4) > 0)[:, None] & np.ones(7, bool)),
}


def divergence(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    """From JAX's softmax, over the entries that are there."""
    own, target = (
        jax.nn.log_softmax(x if where is None else jnp.where(where, x, -1e30))
        for x in (student, teacher)
    )
    return jnp.sum(jnp.exp(target) * (target - own), axis=-1)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("size", SIZES)
def test_kl_of_scores_is_jaxs_and_so_are_both_gradients(size: float, where: str) -> None:
    student = drawn(0, size)
    teacher = drawn(1, size)
    kept = WHERE[where]
    same(
        differentiated(lambda *scores: kl_of_scores(*scores, kept), student, teacher),
        differentiated(lambda *scores: divergence(*scores, kept), student, teacher),
    )


def test_kl_of_scores_is_optaxs() -> None:
    student = drawn(0)
    teacher = drawn(1)
    want = optax.losses.kl_divergence_with_log_targets(
        log_softmax(student, -1), log_softmax(teacher, -1)
    )
    np.testing.assert_allclose(kl_of_scores(student, teacher), want, rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_priced_is_what_runs(size: float) -> None:
    student = drawn(0, size)
    teacher = drawn(1, size)
    labels = jnp.zeros(SHAPE[:2], int)
    kept = WHERE["other entries of each row"]

    def both(student: jax.Array, teacher: jax.Array) -> jax.Array:
        return cross_entropy(student, labels) + kl_of_scores(student, teacher, kept)

    lean = differentiated(both, student, teacher)
    with reference():
        same(lean, differentiated(both, student, teacher))


def test_what_is_not_there_gets_no_gradient_whatever_it_holds() -> None:
    """As padding does: scores that are NaN beyond `where`."""
    there = WHERE["other entries of each row"]
    student, teacher = (jnp.where(there, drawn(seed), jnp.nan) for seed in (0, 1))
    value, gradients = differentiated(
        lambda *scores: kl_of_scores(*scores, there), student, teacher
    )
    assert np.isfinite(value).all()
    for gradient in gradients:
        np.testing.assert_array_equal(
            gradient == 0, ~np.broadcast_to(there, SHAPE) | (there.sum(-1) == 1)[:, None]
        )


def test_half_precision_is_widened() -> None:
    student, teacher = (drawn(seed).astype(jnp.bfloat16) for seed in (0, 1))
    assert kl_of_scores(student, teacher).dtype == jnp.float32
    assert [
        x.dtype for x in jax.grad(lambda *x: kl_of_scores(*x).sum(), (0, 1))(student, teacher)
    ] == [jnp.bfloat16] * 2
