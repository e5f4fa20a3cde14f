"""Means over what counts, in float32 or wider. B batch, H heads, L length, S slots, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from kdjax.errors import InputError

_MASKED = -1e30
"""Stands for a score that is not there: finite, so that 0 x (its difference from another) is 0 and not NaN."""


def precise(x: jax.Array) -> jax.Array:
    """`x` as float32, or as it is if wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def given(logits: jax.Array | None) -> jax.Array:
    """The logits `[B, S, V]` or `[B, L, V]` in float32 or wider.

    Raises:
        InputError: the forward pass was not asked for them.
    """
    if logits is None:
        raise InputError("features without logits, expected a forward pass that was asked for them")
    return precise(logits)


def valid_pairs(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Which pairs of positions belong together: both valid, in one segment; bool `[B, 1, L, L]`."""
    segments, valid = batch["segments"], batch["valid"]
    same = segments[:, :, None] == segments[:, None, :]
    return (same & valid[:, :, None] & valid[:, None, :])[:, None]


def mean(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean of the values at `where` (broadcast over them); 0 if there are none."""
    if where is None:
        return jnp.mean(precise(values))
    kept = jnp.where(where, precise(values), 0)
    # Counted in integers: a float32 count stops growing at 2^24, which a batch's pairs of positions reach.
    count = jnp.sum(where, dtype=jnp.int32).astype(kept.dtype) * (values.size // where.size)
    return jnp.sum(kept) / jnp.maximum(count, 1)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of the values by their weights; 0 if no weight is above 0. What has weight 0 may hold anything."""
    weights = precise(weights)
    total = jnp.sum(weights)
    return jnp.sum(jnp.where(weights > 0, values, 0) * weights) / jnp.where(total > 0, total, 1)


def mse(student: jax.Array, teacher: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean squared difference over the elements at `where` (broadcast over them)."""
    difference = precise(student) - precise(teacher)
    # Cleared before it is squared, so that what does not count gets no gradient whatever it holds.
    cleared = difference if where is None else jnp.where(where, difference, 0)
    return mean(jnp.square(cleared), where)


def log_softmax(scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Log-probabilities over the last axis; entries outside `where` have probability 0 and stay finite."""
    scores = precise(scores)
    return jax.nn.log_softmax(scores if where is None else jnp.where(where, scores, _MASKED))


def kl(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """KL(teacher‖student) over the last axis, from log-probabilities."""
    divergence: jax.Array = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return divergence
