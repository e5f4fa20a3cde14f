"""Dropout by counter: whether an element is kept is a hash of its sequence's seed, of layer and
site, and of its place.

So it is the same however a batch is split over devices or taken in parts, it takes a dozen integer
operations where threefry takes a hundred, and a kernel can make it where it is used. B batch, L
length.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.kernels.counter import is_kept, mix, step

Key = jax.Array | None
"""Of dropout: None (there is none), seeds, or a JAX key."""


def seeds(key: Key, sequences: int) -> Key:
    """A seed for each sequence of a batch, int32 `[B, 2]`.

    A key of JAX's generator `rbg` stays one, and so do seeds: the reference program draws from
    XLA's own generator, whose work counts as no FLOPs.
    """
    if key is None or not _is_key(key) or jax.random.key_impl(key) == "rbg":
        return key
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (sequences, 2)), jnp.int32)


def fold(key: Key, number: int | jax.Array) -> Any:
    """The key of a part: of a layer, of a site."""
    if key is None:
        return None
    if _is_key(key):
        return jax.random.fold_in(key, number)
    first = key[:, 0]
    second = key[:, 1]
    # The halves change places, so that either is mixed with the other.
    number = jnp.asarray(number, jnp.int32) + 1
    return jnp.stack(
        [mix(second + number * step(1), first), mix(first + number * step(1), second)], axis=1
    )


def drop(x: jax.Array, rate: float, key: Key, *, site: int) -> jax.Array:
    """Dropout of `[B, ...]`; sites under one key have different numbers."""
    if key is None or rate == 0:
        return x
    own: jax.Array = fold(key, site)
    if _is_key(own):
        return jnp.where(jax.random.bernoulli(own, 1 - rate, x.shape), x / (1 - rate), 0)
    return _drop(x, own, rate)


def keep(shape: tuple[int, ...], rate: float, key: Key) -> jax.Array | None:
    """Which elements of `[B, ...]` dropout keeps; None: all."""
    if key is None or rate == 0:
        return None
    return jax.random.bernoulli(key, 1 - rate, shape) if _is_key(key) else kept(key, shape, rate)


def kept(seeds: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Which elements of `[B, ...]` are kept, by the seeds `[B, 2]` of their sequences."""

    def along(axis: int, x: jax.Array) -> jax.Array:
        return x.reshape([-1 if n == axis else 1 for n in range(len(shape))])

    count = along(0, seeds[:, 0])
    for axis in range(1, len(shape)):
        count = count + along(
            axis, jnp.arange(shape[axis], dtype=jnp.int32) * step(math.prod(shape[axis + 1 :]))
        )
    return is_kept(mix(count, along(0, seeds[:, 1])), rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x: jax.Array, seeds: jax.Array, rate: float) -> jax.Array:
    return jnp.where(kept(seeds, x.shape, rate), x * (1 / (1 - rate)), 0).astype(x.dtype)


def _drop_forward(x: jax.Array, seeds: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    return _drop(x, seeds, rate), seeds


def _drop_backward(rate: float, seeds: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    return _drop(gradient, seeds, rate), None


_drop.defvjp(_drop_forward, _drop_backward)


def _is_key(key: Any) -> bool:
    return bool(jnp.issubdtype(key.dtype, jax.dtypes.prng_key))
