"""Terms are checked in float64, so that a wrong equation cannot hide in rounding."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
