"""Means over what counts."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from kdjax.objectives.reductions import mean, mse, weighted_mean
from tests.support.doctests import check_example


@pytest.mark.parametrize("documented", [mean, weighted_mean, mse])
def test_example_of_a_reduction_prints_what_it_says(documented: Callable[..., jax.Array]) -> None:
    check_example(documented, {documented.__name__: documented, "jnp": jnp})
