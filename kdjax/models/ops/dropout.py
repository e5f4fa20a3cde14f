"""Dropout by counter: whether an element is kept is a hash of its sequence's seed, of layer and
site, and of its place.

So it is the same however a batch is split over devices or taken in parts, it takes a dozen integer
operations where threefry takes a hundred, and a kernel can compute it where it is used. B batch, L
length.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.models.ops.counter import hash_counter, is_kept, stride

DropoutKey = jax.Array | None
"""What dropout draws from, called `dropout_key` everywhere: a seed for each sequence of the batch,
int32 `[B, 2]`; or a JAX key, which `sequence_seeds` makes such seeds of; None: no dropout."""


class Site:
    """The numbers of a model's dropouts, each the only one of its number under its key.

    The model's key is folded with 0 for the embeddings, with n for layer n of N, and with N + 1 for
    a task's head. Another number here would drop other elements.
    """

    # Under the embeddings' key
    EMBEDDINGS = 0

    # Under a layer's key
    ATTENTION_PROBS = 0
    ATTENTION_OUTPUT = 1
    FFN_OUTPUT = 2
    FFN_HIDDEN = 3

    # Under the key of a task's head
    TASK_POOLED = 0


def sequence_seeds(dropout_key: DropoutKey, sequences: int) -> DropoutKey:
    """Draw a seed for each sequence of a batch from a JAX key, int32 `[B, 2]`.

    Seeds stay as they are, and so do None and a key of JAX's generator `rbg`: what is priced draws
    from XLA's own generator, whose work counts as no FLOPs.

    Args:
        dropout_key: a JAX key, seeds, or None where nothing is dropped.
        sequences: number B of sequences.
    """
    if dropout_key is None or not _is_key(dropout_key) or jax.random.key_impl(dropout_key) == "rbg":
        return dropout_key
    return jax.lax.bitcast_convert_type(jax.random.bits(dropout_key, (sequences, 2)), jnp.int32)


def fold(dropout_key: DropoutKey, number: int | jax.Array) -> Any:
    """Derive the dropout key of a layer or a site; None stays None.

    Args:
        dropout_key: a JAX key, seeds of sequences `[B, 2]`, or None where nothing is dropped.
        number: number of the layer or site; each gives another key.
    """
    if dropout_key is None:
        return None
    if _is_key(dropout_key):
        return jax.random.fold_in(dropout_key, number)
    first = dropout_key[:, 0]
    second = dropout_key[:, 1]
    offset = (jnp.asarray(number, jnp.int32) + 1) * stride(1)
    # The halves change places, so that either is mixed with the other.
    mixed_first = hash_counter(second + offset, first)
    mixed_second = hash_counter(first + offset, second)
    return jnp.stack([mixed_first, mixed_second], axis=1)


def dropout(x: jax.Array, rate: float, dropout_key: DropoutKey, *, site: int) -> jax.Array:
    """Drop elements out and scale the others by 1/(1 − rate).

    Args:
        x: array of a batch, `[B, ...]`.
        rate: probability that an element becomes 0.
        dropout_key: seeds of the sequences, a JAX key, or None where nothing is dropped.
        site: a number that no other dropout under this key has.
    """
    if dropout_key is None or rate == 0:
        return x
    site_key: jax.Array = fold(dropout_key, site)
    if _is_key(site_key):
        return jnp.where(jax.random.bernoulli(site_key, 1 - rate, x.shape), x / (1 - rate), 0)
    return _by_seeds(x, site_key, rate)


def keep_mask(
    shape: tuple[int, ...], rate: float, dropout_key: DropoutKey, *, site: int
) -> jax.Array | None:
    """Return which elements `dropout` with the same arguments would keep.

    Args:
        shape: shape of the array, `[B, ...]`.
        rate: probability that an element becomes 0.
        dropout_key: seeds of the sequences, a JAX key, or None where nothing is dropped.
        site: a number that no other dropout under this key has.

    Returns:
        bool array of `shape`; None: all are kept.
    """
    if dropout_key is None or rate == 0:
        return None
    site_key: jax.Array = fold(dropout_key, site)
    if _is_key(site_key):
        return jax.random.bernoulli(site_key, 1 - rate, shape)
    return keep_mask_by_seeds(site_key, shape, rate)


def keep_mask_by_seeds(seeds: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Return which elements dropout keeps, from a seed for each sequence.

    Args:
        seeds: int32 `[B, 2]`.
        shape: shape of the array, `[B, ...]`.
        rate: probability that an element is dropped.

    Returns:
        bool array of `shape`.
    """

    def along(axis: int, x: jax.Array) -> jax.Array:
        broadcastable = [1] * len(shape)
        broadcastable[axis] = -1
        return x.reshape(broadcastable)

    # The counter is the place in the sequence, moved by the sequence's first seed.
    count = along(0, seeds[:, 0])
    for axis in range(1, len(shape)):
        places = jnp.arange(shape[axis], dtype=jnp.int32)
        count = count + along(axis, places * stride(math.prod(shape[axis + 1 :])))
    return is_kept(hash_counter(count, along(0, seeds[:, 1])), rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_seeds(x: jax.Array, seeds: jax.Array, rate: float) -> jax.Array:
    """Compute `dropout` of `[B, ...]` by the seeds `[B, 2]` of a site."""
    keep = keep_mask_by_seeds(seeds, x.shape, rate)
    return jnp.where(keep, x * (1 / (1 - rate)), 0).astype(x.dtype)


def _forward(x: jax.Array, seeds: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """Compute y = K ⊙ x/(1 − rate), K what is kept; the seeds are stored."""
    return _by_seeds(x, seeds, rate), seeds


def _backward(rate: float, seeds: jax.Array, grad_out: jax.Array) -> tuple[jax.Array, None]:
    """Compute dx = K ⊙ dy/(1 − rate)."""
    # The mask is computed again, not stored.
    return _by_seeds(grad_out, seeds, rate), None


_by_seeds.defvjp(_forward, _backward)


def _is_key(key: Any) -> bool:
    """Return whether a dropout key is a JAX key, not seeds of sequences."""
    return bool(jnp.issubdtype(key.dtype, jax.dtypes.prng_key))
