"""Terms are checked in float64, so that a wrong equation cannot hide in rounding."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from kdjax.objectives import Features
from tests.objectives.examples import STUDENT, TEACHER, features, packed, padded


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[padded, packed])
def example(
    request: pytest.FixtureRequest, float64: None
) -> tuple[Features, Features, dict[str, np.ndarray]]:
    """The features of a student and a teacher, and their batch, padded or packed."""
    make: Callable[[], dict[str, np.ndarray]] = request.param
    batch = make()
    return features(STUDENT, batch, 1), features(TEACHER, batch, 2), batch
