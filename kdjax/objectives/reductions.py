"""Means over what counts, in float32 or wider. B batch, L length, S slots, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kdjax.errors import InputError
from kdjax.models.ops import at_least_float32


def require_logits(logits: jax.Array | None) -> jax.Array:
    """Return the logits `[B, S, V]` or `[B, L, V]` in float32 or wider.

    Raises:
        InputError: the forward pass was not asked for them.
    """
    if logits is None:
        raise InputError("features without logits, expected a forward pass that was asked for them")
    return at_least_float32(logits)


def valid_pairs(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Return the mask of pairs of valid positions in one segment, bool `[B, 1, L, L]`."""
    segments = batch["segments"]
    valid = batch["valid"]
    same_segment = segments[:, :, None] == segments[:, None, :]
    return (same_segment & valid[:, :, None] & valid[:, None, :])[:, None]


def mean(values: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Compute the mean of the values at `where`.

    Args:
        values: array of any shape.
        where: bool, broadcast over the values: those that count; None: all.

    Returns:
        A scalar, float32 or wider; 0 where none counts.

    Example:
        >>> float(mean(jnp.array([1.0, 2.0, 9.0]), jnp.array([True, True, False])))
        1.5
    """
    if where is None:
        return jnp.mean(at_least_float32(values))
    cleared = jnp.where(where, at_least_float32(values), 0)
    # Counted in integers: a float32 count stops growing at 2^24, which a batch's pairs of positions
    # reach.
    count = jnp.sum(where, dtype=jnp.int32).astype(cleared.dtype) * (values.size // where.size)
    return jnp.sum(cleared) / jnp.maximum(count, 1)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Compute the mean of the values by their weights.

    Args:
        values: array of any shape; what has weight 0 may hold anything.
        weights: numbers from 0 on, of the same shape.

    Returns:
        A scalar, float32 or wider; 0 where no weight is above 0.

    Example:
        >>> float(weighted_mean(jnp.array([1.0, 5.0, jnp.nan]), jnp.array([3, 1, 0])))
        2.0
    """
    weights = at_least_float32(weights)
    total = jnp.sum(weights)
    cleared = jnp.where(weights > 0, values, 0)
    return jnp.sum(cleared * weights) / jnp.where(total > 0, total, 1)


def mse(student: jax.Array, teacher: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Compute the mean squared difference of the elements at `where`.

    Args:
        student: array of any shape.
        teacher: array of the same shape.
        where: bool, broadcast over them: the elements that count; None: all.

    Returns:
        A scalar, float32 or wider; 0 where none counts.

    Example:
        >>> float(mse(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0])))
        4.5
    """
    difference = at_least_float32(student) - at_least_float32(teacher)
    if where is not None:
        # Before it is squared, so that what does not count gets no gradient whatever it holds.
        difference = jnp.where(where, difference, 0)
    return mean(jnp.square(difference), where)


def word_means(x: jax.Array, words: jax.Array, count: int) -> jax.Array:
    """Compute the mean of vectors over the tokens of each aligned word.

    A product with a matrix of zeros and ones, which is exact in any type, and a division.

    Args:
        x: `[B, L, D]`, a vector for each token.
        words: `[B, L]` int32: aligned word of each token, from 1; 0 is padding.
        count: W, the words that a row has room for.

    Returns:
        `[B, W, D]`, float32 or wider: at k the mean of word k + 1; 0 where there is none.
    """
    x = at_least_float32(x)
    numbers = jnp.arange(1, count + 1, dtype=words.dtype)
    is_of_word = (words[:, None, :] == numbers[:, None]).astype(x.dtype)
    tokens = jnp.sum(is_of_word, axis=-1, keepdims=True)
    # Padding may hold anything, which 0 times it need not be 0.
    x = jnp.where((words > 0)[..., None], x, 0)
    return is_of_word @ x / jnp.maximum(tokens, 1)
