"""The attention kernel beside plain JAX."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.ops.dropout import keep_mask_by_seeds, sequence_seeds
from kdjax.models.ops.kernels import attention
from kdjax.models.ops.kernels.tiles import AttentionSettings
from tests.models.ops.examples import (
    BF16,
    F32,
    KERNEL_ROUNDING,
    LENGTH,
    assert_near,
    drawn,
    grids,
    segments,
)

HEADS = 2
WIDTH = 128


def also(*values: object) -> Any:
    """Return a combination whose parts others hold already."""
    return pytest.param(*values, marks=pytest.mark.exhaustive)


def plain(
    joined: jax.Array,
    segments: jax.Array,
    seeds: jax.Array | None = None,
    rate: float = 0.0,
    half_window: int = LENGTH,
) -> tuple[jax.Array, jax.Array]:
    """Compute dropout(softmax(q kᵀ/√d)) v, and q kᵀ/√d."""

    def in_heads(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    parts = jnp.split(joined, 3, axis=-1)
    query = in_heads(parts[0])
    key = in_heads(parts[1])
    value = in_heads(parts[2])
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    same_segment = segments[:, None, :, None] == segments[:, None, None]
    places = jnp.arange(LENGTH)
    seen = same_segment & (jnp.abs(places[:, None] - places) <= half_window)
    probs = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
    # The same mask as the kernel draws, from the same seeds.
    if seeds is not None:
        probs = jnp.where(keep_mask_by_seeds(seeds, probs.shape, rate), probs / (1 - rate), 0)
    context = probs @ value
    return context.transpose(0, 2, 1, 3).reshape(*joined.shape[:2], -1), scores


def inputs(batch: int, dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return queries, keys and values; segments; the gradients of the context and of the scores."""
    return (
        drawn(batch, LENGTH, 3 * WIDTH, dtype=dtype),
        segments(batch),
        drawn(batch, LENGTH, WIDTH, seed=1, dtype=dtype),
        drawn(batch, HEADS, LENGTH, LENGTH, seed=2, dtype=dtype),
    )


def run(
    joined: jax.Array,
    segments: jax.Array,
    grad_context: jax.Array,
    grad_scores: jax.Array | None,
    seeds: jax.Array | None = None,
    rate: float = 0.0,
    half_window: int | None = None,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Return the results of both kernels, run as plain JAX."""
    settings = AttentionSettings(HEADS, rate, half_window, with_scores=grad_scores is not None)
    arrays = (joined, segments, seeds)
    out = attention.forward(*arrays, settings, interpret=True)
    grads_out = (grad_context, grad_scores)
    return out, attention.backward(*arrays, *grads_out, settings=settings, interpret=True)


@pytest.mark.parametrize(
    ("dtype", "with_scores", "dropout"),
    [
        # Each two of the three settings in all their combinations
        *((F32, False, False), (F32, True, True), (BF16, False, True), (BF16, True, False)),
        also(F32, False, True),
        also(F32, True, False),
        also(BF16, False, False),
        also(BF16, True, True),
    ],
)
def test_kernel_computes_plain_attention_and_drops_out_the_same_probabilities(
    dtype: Any, with_scores: bool, dropout: bool
) -> None:
    joined, segment_ids, grad_context, grad_scores = inputs(3, dtype)
    options: dict[str, Any] = {}
    if dropout:
        options = {"seeds": sequence_seeds(jax.random.key(4), 3), "rate": 0.3}
    # Results in the inputs' type, whatever was computed with inside.
    got = run(joined, segment_ids, grad_context, grad_scores if with_scores else None, **options)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(dtype)}

    # In float32 and without blocks: the whole square of scores at once.
    out, pull = jax.vjp(lambda x: plain(x, segment_ids, **options), joined.astype(F32))
    # Without scores as a result they have no gradient to add.
    if not with_scores:
        out = out[:1]
        grad_scores = jnp.zeros_like(grad_scores)
    (grad,) = pull((grad_context.astype(F32), grad_scores.astype(F32)))
    assert_near(got, (out, grad), KERNEL_ROUNDING[dtype])


@pytest.mark.parametrize("sequences", [1, also(2), 3])
def test_kernel_does_not_depend_on_how_many_sequences_a_step_of_its_grid_takes(
    monkeypatch: pytest.MonkeyPatch, sequences: int
) -> None:
    arrays = inputs(6, F32)
    all_at_once = run(*arrays)
    # A block holds as many sequences as fit: here one, two or three.
    monkeypatch.setattr(attention, "BLOCK_BYTES", sequences * arrays[0][0].nbytes)
    # A function of its own, as JAX keeps what it has traced of another.
    assert grids(functools.partial(run), *arrays) == [(6 // sequences,)] * 2
    assert_near(run(*arrays), all_at_once, KERNEL_ROUNDING[F32])


def test_position_sees_its_own_segment_alone() -> None:
    joined, segment_ids, *_ = inputs(1, F32)
    moved = joined.at[0, 50].add(1.0)
    settings = AttentionSettings(HEADS)
    before = attention.forward(joined, segment_ids, None, settings, interpret=True)[0]
    # A position of the third segment is changed.
    after = attention.forward(moved, segment_ids, None, settings, interpret=True)[0]
    changed = np.flatnonzero(np.any(before != after, axis=(0, 2)))
    assert changed.tolist() == np.flatnonzero(segment_ids[0] == 3).tolist()


def test_kernel_takes_large_scores() -> None:
    joined, segment_ids, grad_context, grad_scores = inputs(2, F32)
    # Queries and keys alone grow, so that scores grow by 900.
    large = joined.at[..., : 2 * WIDTH].multiply(30)
    out, grad = run(large, segment_ids, grad_context, grad_scores)
    context, _ = out
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(context, plain(large, segment_ids)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("length", "width", "heads", "scores", "fits"),
    [
        (128, 768, 12, False, True),
        (512, 384, 6, False, True),
        (256, 1024, 16, False, True),
        (384, 768, 12, False, False),  # more than a chip's memory takes
        (256, 768, 12, True, True),
        (128, 128, 16, False, True),
        (120, 768, 12, False, False),  # not whole tiles
        (640, 768, 12, False, False),  # too long
        (512, 384, 6, True, False),  # too many scores
        (128, 192, 3, False, False),  # columns that are not whole tiles
        (128, 128, 32, False, False),  # heads narrower than a tile's rows
    ],
)
def test_kernel_fits_short_sequences_of_whole_tiles(
    length: int, width: int, heads: int, scores: bool, fits: bool
) -> None:
    assert attention.fits(length, width, heads, scores=scores) is fits


def test_kernel_with_a_sliding_window_computes_plain_attention_inside_it() -> None:
    arrays = inputs(2, F32)
    got = run(*arrays, half_window=3)
    joined, segment_ids, *grads_out = arrays
    out, pull = jax.vjp(lambda x: plain(x, segment_ids, half_window=3), joined)
    assert_near(got, (out, pull(tuple(grads_out))[0]), KERNEL_ROUNDING[F32])
