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


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.arange(6, dtype=np.float32).reshape(2, 3), "float32[2, 3] 70deab94d81376a5"),
        (np.zeros(4, np.float32), "float32[4] a3cb91b541029d22"),
        (np.array([-1, 0, 2**31 - 1], np.int32), "int32[3] 4ca93806d7708240"),
        (np.array([0, 1, 255], np.uint8), "uint8[3] 3ec507b5dde7badb"),
        (np.array([True, False, True]), "bool[3] 7121dd753a53e8d4"),
        (np.array(1.5, np.float32), "float32[] 0f92d7a7863bb467"),
        (np.arange(5).astype(jnp.bfloat16), "bfloat16[5] 71fc1021b0566ea0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_checksum_is_the_one_that_checkpoints_hold(array: np.ndarray, expected: str) -> None:
    """Checkpoints that were written before are read by these."""
    assert checksum_of(array) == expected


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
    different = [
        checksum_of(x)
        for x in (np.zeros(6, np.float32), np.zeros((2, 3), np.float32), np.zeros(6, np.int32))
    ]
    # Negative zero equals zero, but is stored by another bit.
    different.append(checksum_of(-np.zeros(6, np.float32)))
    assert len(set(different)) == 4


def test_differing_names_changed_arrays() -> None:
    before = {"a": jnp.arange(3), "b": {"c": jnp.ones(4)}}
    stored = checksums(before)
    # No change, a changed entry, and an array that is not there.
    assert differing(before, stored) == []
    assert differing({**before, "b": {"c": jnp.ones(4).at[2].set(0)}}, stored) == ["['b']['c']"]
    assert differing({"a": before["a"]}, stored) == ["['b']['c']"]
