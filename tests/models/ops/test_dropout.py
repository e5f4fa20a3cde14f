"""Dropout by counter: its rate, that elements are independent, and that it is the same however a
batch is split."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.ops.counter import hash_counter, stride
from kdjax.models.ops.dropout import dropout, fold, keep_mask, keep_mask_by_seeds, sequence_seeds

SEQUENCES = 64
LENGTH = 32
WIDTH = 64
SHAPE = (SEQUENCES, LENGTH, WIDTH)
SEEDS = sequence_seeds(jax.random.key(0), SEQUENCES)


def standardized(seeds: jax.Array, rate: float) -> np.ndarray:
    """Return what is kept with mean 0 and variance 1, if each is kept with probability 1 - rate."""
    keep = np.asarray(keep_mask_by_seeds(seeds, SHAPE, rate), np.float64)
    return (keep - (1 - rate)) / np.sqrt(rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_share_dropped_is_the_rate_overall_and_in_every_sequence_position_and_unit(
    rate: float,
) -> None:
    z = standardized(SEEDS, rate)
    # A sum of independent draws is normal: four standard deviations overall.
    assert abs(z.sum()) / np.sqrt(z.size) < 4
    # Then along each axis alone: a sequence, a position or a unit with another rate would show.
    for axis, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        sums = z.sum(axis=others) / np.sqrt(z.size / SHAPE[axis])
        assert np.abs(sums).max() < 5.5
        assert sums.std() == pytest.approx(1, abs=0.35)  # neither too uneven nor too even


@pytest.mark.parametrize(
    "lag", [(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0)]
)
def test_neighbours_of_every_kind_are_independent(lag: tuple[int, ...]) -> None:
    z = standardized(SEEDS, 0.1)
    # Each element beside the one that lies `lag` further.
    here = z[tuple(slice(n - by) for n, by in zip(SHAPE, lag, strict=True))]
    there = z[tuple(slice(by, None) for by in lag)]
    assert abs((here * there).sum()) / np.sqrt(here.size) < 4.5


def test_layers_sites_and_steps_are_independent() -> None:
    masks = []
    # Every mask of three steps, seven layers and three sites, against every other.
    for step, layer, site in itertools.product(range(3), range(7), range(3)):
        seeds = sequence_seeds(jax.random.fold_in(jax.random.key(1), step), SEQUENCES)
        masks.append(standardized(fold(fold(seeds, layer), site), 0.1).ravel())
    flat = np.stack(masks)
    correlations = flat @ flat.T / np.sqrt(flat.shape[1])
    # The diagonal is each mask with itself.
    assert np.abs(correlations[~np.eye(len(masks), dtype=bool)]).max() < 5


def test_every_high_bit_of_the_hash_turns_with_every_bit_of_the_counter() -> None:
    count = jnp.arange(1 << 16, dtype=jnp.int32) * stride(1)
    hashed = np.asarray(hash_counter(count, jnp.int32(12345)))
    for bit in range(32):
        flipped = jnp.int32(np.uint32(1 << bit).astype(np.int32))
        turned = np.asarray(hash_counter(count ^ flipped, jnp.int32(12345)))
        high = (hashed ^ turned).view(np.uint32) >> 16  # what a rate is compared with first
        assert all(0.2 < (high >> k & 1).mean() < 0.8 for k in range(16))


def test_sequence_is_dropped_by_its_own_seed_alone() -> None:
    # A sequence keeps its dropout on whichever device, and in whichever part of a batch, it lies.
    rows = np.array([5, 0, 63])
    everything = keep_mask_by_seeds(SEEDS, SHAPE, 0.3)
    some = keep_mask_by_seeds(SEEDS[rows], (3, *SHAPE[1:]), 0.3)
    np.testing.assert_array_equal(everything[rows], some)
    np.testing.assert_array_equal(fold(fold(SEEDS, 2), 1)[rows], fold(fold(SEEDS[rows], 2), 1))


def test_fold_takes_a_traced_number() -> None:
    np.testing.assert_array_equal(fold(SEEDS, 3), jax.jit(fold)(SEEDS, 3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropout_scales_what_is_kept_and_its_gradient_too(dtype: str) -> None:
    x = jnp.full(SHAPE, 3.0, dtype)
    out, pull = jax.vjp(lambda x: dropout(x, 0.25, SEEDS, site=2), x)
    (grad,) = pull(jnp.full(SHAPE, 6.0, dtype))
    assert out.dtype == grad.dtype == x.dtype
    # With a rate of a quarter, what is kept is divided by three quarters: 3 becomes 4.
    keep = keep_mask(SHAPE, 0.25, SEEDS, site=2)
    np.testing.assert_array_equal(out, np.where(keep, 4.0, 0.0))
    np.testing.assert_array_equal(grad, 2 * out)


def test_seeds_given_for_sequences_are_taken_as_they_are() -> None:
    assert sequence_seeds(SEEDS, SEQUENCES) is SEEDS


def test_without_a_key_or_a_rate_nothing_is_dropped() -> None:
    x = jnp.ones(SHAPE)
    assert sequence_seeds(None, SEQUENCES) is None
    assert fold(None, 1) is None
    for rate, key in ((0.1, None), (0.0, SEEDS)):
        assert dropout(x, rate, key, site=0) is x
        assert keep_mask(SHAPE, rate, key, site=0) is None


def test_with_a_key_of_xlas_generator_its_bits_are_taken() -> None:
    key = jax.random.key(0, impl="rbg")
    assert sequence_seeds(key, SEQUENCES) is key
    traced = jax.make_jaxpr(lambda key: dropout(jnp.ones(4), 0.5, key, site=0))(key)
    assert "random_bits" in str(traced)
