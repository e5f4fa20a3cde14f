"""Checksums of arrays: the same on any layout; any change is noticed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kdjax.training.checksum import checksums, differing

RNG = np.random.default_rng(0)
ARRAY = RNG.normal(size=(8, 16, 24)).astype(np.float32)


def checksum_of(array: Any) -> str:
    return checksums({"x": array})["['x']"]


def by_hand(words: np.ndarray) -> str:
    """Compute the same sums in NumPy, over unsigned 32-bit words."""
    # A word's place is mixed in, so that exchanging two is noticed.
    place = np.arange(words.size, dtype=np.uint32)
    h = words.reshape(-1) ^ (place * np.uint32(0x9E3779B1))
    # Two mixes of 32 bits, each summed: sums do not depend on the order.
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    h ^= h >> 16
    g = (h ^ (h >> 15)) * np.uint32(0x2C1B3C6D)
    g ^= g >> 12
    return " ".join([f"{np.sum(h, dtype=np.uint32):08x}{np.sum(g, dtype=np.uint32):08x}"])


def test_checksum_equals_numpy() -> None:
    assert checksum_of(ARRAY) == f"float32[8, 16, 24] {by_hand(ARRAY.view(np.uint32))}"


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8,), ("a",)),
        ((2, 4), ("a", "b")),
        ((2, 4), (None, ("a", "b"))),
        ((2, 2, 2), (None, "b", "c")),
        ((2, 2, 2), ("c", "a", "b")),
        ((4, 2), (None, None, "a")),
    ],
)
def test_checksum_on_any_mesh_is_the_same(shape: tuple[int, ...], spec: tuple[Any, ...]) -> None:
    mesh = jax.make_mesh(shape, tuple("abc")[: len(shape)], (AxisType.Auto,) * len(shape))
    assert checksum_of(
        jax.device_put(ARRAY, NamedSharding(mesh, PartitionSpec(*spec)))
    ) == checksum_of(ARRAY)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_checksum_changes_with_any_bit(dtype: Any, data: st.DataObject) -> None:
    array = np.asarray(jnp.asarray(RNG.integers(0, 2, (5, 7)), dtype))
    place = data.draw(st.integers(0, array.size - 1))
    bit = 0 if dtype == jnp.bool_ else data.draw(st.integers(0, 8 * array.itemsize - 1))
    changed = array.copy()
    raw = changed.reshape(-1).view(np.uint8)
    raw[place * array.itemsize + bit // 8] ^= 1 << bit % 8
    assert checksum_of(changed) != checksum_of(array)


@given(st.integers(0, ARRAY.size - 1), st.integers(0, ARRAY.size - 1))
@settings(max_examples=50, deadline=None)
def test_checksum_changes_when_elements_swap(here: int, there: int) -> None:
    swapped = ARRAY.reshape(-1).copy()
    swapped[[here, there]] = swapped[[there, here]]
    assert (checksum_of(swapped.reshape(ARRAY.shape)) == checksum_of(ARRAY)) == (here == there)


def test_checksum_tells_types_shapes_and_zeros() -> None:
    checksums = [
        checksum_of(x)
        for x in (np.zeros(6, np.float32), np.zeros((2, 3), np.float32), np.zeros(6, np.int32))
    ]
    # Negative zero equals zero, but is stored by another bit.
    checksums.append(checksum_of(-np.zeros(6, np.float32)))
    assert len(set(checksums)) == 4


def test_differing_names_changed_arrays() -> None:
    before = {"a": jnp.arange(3), "b": {"c": jnp.ones(4)}}
    stored = checksums(before)
    # No change, a changed entry, and an array that is not there.
    assert differing(before, stored) == []
    assert differing({**before, "b": {"c": jnp.ones(4).at[2].set(0)}}, stored) == ["['b']['c']"]
    assert differing({"a": before["a"]}, stored) == ["['b']['c']"]
