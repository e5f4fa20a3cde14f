"""The attention kernel beside plain JAX."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.kernels import attention
from kdjax.models.dropout import kept, seeds
from tests.kernels.examples import BF16, F32, LENGTH, drawn, near, segments

HEADS = 2
WIDTH = 128


def plain(
    joined: jax.Array, segments: jax.Array, seeds: jax.Array | None = None, rate: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """dropout(softmax(q kᵀ/√d)) v, and q kᵀ/√d."""
    query, key, value = (
        x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)
        for x in jnp.split(joined, 3, axis=-1)
    )
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    same = segments[:, None, :, None] == segments[:, None, None]
    weights = jax.nn.softmax(jnp.where(same, scores, -jnp.inf))
    if seeds is not None:
        weights = jnp.where(kept(seeds, weights.shape, rate), weights / (1 - rate), 0)
    mixed = weights @ value
    return mixed.transpose(0, 2, 1, 3).reshape(*joined.shape[:2], -1), scores


def inputs(batch: int, dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values; segments; the gradients of the output and of the scores."""
    return (
        drawn(batch, LENGTH, 3 * WIDTH, dtype=dtype),
        segments(batch),
        drawn(batch, LENGTH, WIDTH, seed=1, dtype=dtype),
        drawn(batch, HEADS, LENGTH, LENGTH, seed=2, dtype=dtype),
    )


def run(
    joined: jax.Array,
    segments: jax.Array,
    gradient: jax.Array,
    to_scores: jax.Array | None,
    **options: Any,
) -> Any:
    """What both kernels give."""
    asked = to_scores is not None
    made = attention.forward(joined, segments, HEADS, scores=asked, interpret=True, **options)
    return made, attention.backward(
        joined, segments, gradient, to_scores, HEADS, interpret=True, **options
    )


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_the_kernel_is_plain_attention_with_and_without_scores(dtype: Any, scores: bool) -> None:
    joined, own, gradient, to_scores = inputs(3, dtype)
    got = run(joined, own, gradient, to_scores if scores else None)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(dtype)}
    made, pull = jax.vjp(lambda x: plain(x, own), joined.astype(F32))
    back = to_scores if scores else jnp.zeros_like(to_scores)
    near(
        got, (made if scores else made[:1], *pull((gradient.astype(F32), back.astype(F32)))), dtype
    )


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_it_drops_out_the_very_probabilities_that_plain_attention_does(
    dtype: Any, scores: bool
) -> None:
    joined, own, gradient, to_scores = inputs(3, dtype)
    dropout = {"seeds": seeds(jax.random.key(4), 3), "rate": 0.3}
    got = run(joined, own, gradient, to_scores if scores else None, **dropout)
    made, pull = jax.vjp(lambda x: plain(x, own, **dropout), joined.astype(F32))
    back = to_scores if scores else jnp.zeros_like(to_scores)
    near(
        got, (made if scores else made[:1], *pull((gradient.astype(F32), back.astype(F32)))), dtype
    )


@pytest.mark.parametrize("sequences", [1, 2, 3])
def test_it_does_not_depend_on_how_many_sequences_a_step_of_the_grid_takes(
    monkeypatch: pytest.MonkeyPatch, sequences: int
) -> None:
    joined, own, gradient, to_scores = inputs(6, F32)
    whole = run(joined, own, gradient, to_scores)
    monkeypatch.setattr(attention, "_BLOCK_BYTES", sequences * joined[0].nbytes)
    # Not one that JAX has
    traced = jax.make_jaxpr(functools.partial(run))(joined, own, gradient, to_scores)
    grids = [
        eqn.params["grid_mapping"].grid
        for eqn in traced.eqns
        if eqn.primitive.name == "pallas_call"
    ]
    assert grids == [(6 // sequences,)] * 2
    near(run(joined, own, gradient, to_scores), whole, F32)


def test_a_position_sees_its_own_segment_alone() -> None:
    joined, own, *_ = inputs(1, F32)
    before = attention.forward(joined, own, HEADS, interpret=True)[0]
    after = attention.forward(joined.at[0, 50].add(1.0), own, HEADS, interpret=True)[0]
    moved = np.flatnonzero(np.any(before != after, axis=(0, 2)))
    assert moved.tolist() == np.flatnonzero(own[0] == 3).tolist()


def test_large_scores_are_no_matter() -> None:
    joined, own, gradient, to_scores = inputs(2, F32)
    large = joined.at[..., : 2 * WIDTH].multiply(30)
    (mixed, _), back = run(large, own, gradient, to_scores)
    assert np.isfinite(back).all()
    np.testing.assert_allclose(mixed, plain(large, own)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("length", "width", "heads", "scores", "taken"),
    [
        (128, 768, 12, False, True),
        (512, 768, 12, False, True),
        (256, 768, 12, True, True),
        (128, 128, 16, False, True),
        (120, 768, 12, False, False),  # not whole tiles
        (640, 768, 12, False, False),  # too long
        (512, 768, 12, True, False),  # too many scores
        (128, 192, 3, False, False),  # columns that are not whole tiles
        (128, 128, 32, False, False),  # heads narrower than a tile's rows
    ],
)
def test_what_it_takes(length: int, width: int, heads: int, scores: bool, taken: bool) -> None:
    assert attention.fits(length, width, heads, scores=scores) is taken
