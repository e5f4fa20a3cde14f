"""Dropout by counter: its rate, that elements are independent, and that it is the same however a
batch is taken."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.kernels.counter import mix, step
from kdjax.models.dropout import drop, fold, keep, kept, seeds

SEQUENCES = 64
LENGTH = 32
WIDTH = 64
SHAPE = (SEQUENCES, LENGTH, WIDTH)
SEEDS = seeds(jax.random.key(0), SEQUENCES)


def standardised(mask: jax.Array, rate: float) -> np.ndarray:
    """With mean 0 and variance 1, if it is kept with probability 1 - rate."""
    return (np.asarray(mask, np.float64) - (1 - rate)) / np.sqrt(rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_the_rate_says_overall_and_in_every_sequence_position_and_unit(
    rate: float,
) -> None:
    z = standardised(kept(SEEDS, SHAPE, rate), rate)
    assert abs(z.sum()) / np.sqrt(z.size) < 4
    for axis, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        sums = z.sum(axis=others) / np.sqrt(z.size / SHAPE[axis])
        assert np.abs(sums).max() < 5.5
        assert sums.std() == pytest.approx(1, abs=0.35)  # neither too uneven nor too even


@pytest.mark.parametrize(
    "lag", [(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0)]
)
def test_neighbours_of_every_kind_are_independent(lag: tuple[int, ...]) -> None:
    z = standardised(kept(SEEDS, SHAPE, 0.1), 0.1)
    here = z[tuple(slice(n - by) for n, by in zip(SHAPE, lag, strict=True))]
    there = z[tuple(slice(by, None) for by in lag)]
    assert abs((here * there).sum()) / np.sqrt(here.size) < 4.5


def test_layers_sites_and_steps_are_independent() -> None:
    steps = [seeds(jax.random.fold_in(jax.random.key(1), n), SEQUENCES) for n in range(3)]
    keys = [
        fold(fold(one, layer), site)
        for one, layer, site in itertools.product(steps, range(7), range(3))
    ]
    masks = np.stack([standardised(kept(key, SHAPE, 0.1), 0.1).ravel() for key in keys])
    correlations = masks @ masks.T / np.sqrt(masks.shape[1])
    assert np.abs(correlations[~np.eye(len(keys), dtype=bool)]).max() < 5


def test_every_high_bit_of_the_hash_turns_with_every_bit_of_the_counter() -> None:
    count = jnp.arange(1 << 16, dtype=jnp.int32) * step(1)
    plain = np.asarray(mix(count, jnp.int32(12345)))
    for bit in range(32):
        flipped = jnp.int32(np.uint32(1 << bit).astype(np.int32))
        turned = np.asarray(mix(count ^ flipped, jnp.int32(12345)))
        high = (plain ^ turned).view(np.uint32) >> 16  # what a rate is compared with first
        assert all(0.2 < (high >> k & 1).mean() < 0.8 for k in range(16))


def test_a_sequence_is_dropped_by_its_own_seed_alone() -> None:
    whole = kept(SEEDS, SHAPE, 0.3)
    some = np.array([5, 0, 63])
    np.testing.assert_array_equal(whole[some], kept(SEEDS[some], (3, *SHAPE[1:]), 0.3))
    np.testing.assert_array_equal(fold(fold(SEEDS, 2), 1)[some], fold(fold(SEEDS[some], 2), 1))


def test_a_layers_number_may_be_traced() -> None:
    np.testing.assert_array_equal(fold(SEEDS, 3), jax.jit(fold)(SEEDS, 3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_kept_is_scaled_and_its_gradient_too(dtype: str) -> None:
    x = jnp.full(SHAPE, 3.0, dtype)
    made, pull = jax.vjp(lambda x: drop(x, 0.25, SEEDS, site=2), x)
    (gradient,) = pull(jnp.full(SHAPE, 6.0, dtype))
    assert made.dtype == gradient.dtype == x.dtype
    np.testing.assert_array_equal(made, np.where(keep(SHAPE, 0.25, fold(SEEDS, 2)), 4.0, 0.0))
    np.testing.assert_array_equal(gradient, 2 * made)


def test_seeds_stay_seeds_and_without_a_key_nothing_is_dropped() -> None:
    x = jnp.ones(SHAPE)
    assert (
        seeds(SEEDS, SEQUENCES) is SEEDS
        and seeds(None, SEQUENCES) is None
        and fold(None, 1) is None
    )
    assert drop(x, 0.1, None, site=0) is x and drop(x, 0.0, SEEDS, site=0) is x
    assert keep(SHAPE, 0.1, None) is None and keep(SHAPE, 0.0, SEEDS) is None


def test_with_a_key_of_xlas_generator_its_bits_are_taken() -> None:
    key = jax.random.key(0, impl="rbg")
    assert seeds(key, SEQUENCES) is key
    assert "random_bits" in str(jax.make_jaxpr(lambda k: drop(jnp.ones(4), 0.5, k, site=0))(key))
