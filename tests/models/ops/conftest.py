"""TPUs emulated on a CPU, and float64."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import pytest

from kdjax.models.ops import dispatch
from kdjax.models.ops.kernels import attention, layer_norm, relations


@pytest.fixture
def tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace programs as if for a TPU, with kernels that run as plain JAX."""
    monkeypatch.setattr(dispatch, "platform", lambda: "tpu")
    for kernel in (attention, layer_norm, relations):
        for name in ("forward", "backward"):
            # Pallas then runs a kernel's body step by step in JAX, on any machine.
            interpreted = functools.partial(getattr(kernel, name), interpret=True)
            monkeypatch.setattr(kernel, name, interpreted)


@pytest.fixture
def float64() -> Iterator[None]:
    """Compute in float64, so that a wrong equation cannot hide in rounding."""
    with jax.enable_x64(True):
        yield
