"""Checksums of trees of arrays: of parameters on the host, and of arrays where they are, the same
on any mesh and any host."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
"""Bytes of an element -> the unsigned integers that it is read as."""


def sha256(tree: Any) -> str:
    """Compute the SHA-256 over the paths, types, shapes and bytes of a tree's arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def checksums(tree: Any) -> dict[str, str]:
    """Compute the type, shape and checksum of every array in a tree, by path.

    Arrays stay on their devices and are read once; no sum is rounded, so it does not matter how
    they are split over devices. Two arrays that differ in a single element of at most 4 bytes never
    have the same checksum. Others have it by chance only (64 bits), also where elements changed
    places; an element of 8 bytes is two words, whose changes can cancel by chance.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # One after another: emulated devices have too few threads for several programs in which they
    # wait for each other.
    described = {}
    for path, leaf in leaves:
        compiled = _compiled_checksum(_replicated(leaf))
        first, second = jax.device_get(compiled(leaf))
        name = jax.tree_util.keystr(path)
        described[name] = f"{leaf.dtype}{list(leaf.shape)} {int(first):08x}{int(second):08x}"
    return described


def differing(tree: Any, expected: Mapping[str, str]) -> list[str]:
    """Find the arrays, by path, that only one side has or whose checksums differ."""
    actual = checksums(tree)
    return [path for path in {**expected, **actual} if actual.get(path) != expected.get(path)]


def _replicated(array: Any) -> Sharding | None:
    """Return a sharding on every device of an array's mesh.

    Then a host that has only a part of the array can read its sum.
    """
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    return NamedSharding(sharding.mesh, PartitionSpec())


@functools.cache
def _compiled_checksum(result_sharding: Sharding | None) -> Any:
    """Return `_checksum` jitted, once for each sharding of its result."""
    return jax.jit(_checksum, out_shardings=result_sharding)


def _checksum(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute two sums modulo 2^32 over an array's words, each mixed with its place first.

    For each place the first mix is one-to-one in the word, so a word that changes changes the first
    sum. Its constants are MurmurHash3's (Austin Appleby, public domain).
    """
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    mixed = words ^ (_places(words.shape) * jnp.uint32(0x9E3779B1))
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    mixed ^= mixed >> 16
    again = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    again ^= again >> 12
    zero = jnp.uint32(0)
    # One reduction of both: XLA's CPU compiler reads the array at memory speed then, and at a
    # twentieth of it in two.
    return jax.lax.reduce(  # type: ignore[no-any-return]
        (mixed, again),
        (zero, zero),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        tuple(range(words.ndim)),
    )


def _places(shape: tuple[int, ...]) -> jax.Array:
    """Return each element's number in the whole array, modulo 2^32.

    It is made in place, so nothing is moved between devices.
    """
    places = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        places += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return places
