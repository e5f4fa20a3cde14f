"""Slices that are not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import jax
import pytest

from kdjax.errors import InputError
from kdjax.hlo import aot


@pytest.mark.parametrize(
    ("topology", "line"),
    [
        (
            "v5e",
            "--topology is 'v5e', expected a chip and a shape, for instance v5e:2x4 or v5p:2x2x1",
        ),
        ("v5e:2", "expected a chip and a shape"),
        ("v5e:2x", "expected a chip and a shape"),
        (
            "v9:2x4",
            "--topology is 'v9:2x4', expected one of v4, v5e, v5p, v6e, tpu7x before the colon",
        ),
        ("v5e:3x3", "'v5e:3x3', expected of v5e 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        ("v5e:4x2", "expected of v5e"),
        ("v5e:2x2x2", "expected of v5e"),
        ("v6e:16x32", "expected of v6e"),
        (
            "v5p:2x4",
            "expected of v5p 2x2x1, 2x2x2, 2x2x4, 2x4x4 or ascending multiples of 4 (4x4x8)",
        ),
        ("v5p:0x4x4", "expected of v5p"),
        ("v5p:2x4x8", "expected of v5p"),
        ("tpu7x:8x8x8", "at most 256 chips"),
    ],
)
def test_impossible_slice_is_refused(topology: str, line: str) -> None:
    with pytest.raises(InputError) as refused:
        aot.slice_of(topology)
    assert line in str(refused.value)


def test_missing_libtpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "libtpu" else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(
        InputError, match=r"libtpu.*is not installed; expected pip install 'kdjax\[tpu\]'"
    ):
        aot.slice_of("v5e:2x4")


def test_nothing_compiled_for_a_slice_is_kept() -> None:
    # Where JAX keeps what it compiles for this machine.
    cache = Path(jax.config.values["jax_compilation_cache_dir"])

    def entries_of(name: str) -> int:
        def program(x: float) -> float:
            return x + 1

        program.__name__ = name
        jax.block_until_ready(jax.jit(program)(1.0))
        return sum(name in path.name for path in cache.iterdir())

    with aot.without_compilation_cache():
        assert entries_of("for_a_slice") == 0
    assert entries_of("for_this_machine") > 0
