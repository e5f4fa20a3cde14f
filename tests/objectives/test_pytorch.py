"""Loss and gradients of the paper's arms against numbers recorded from plain eager PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.cases import ARMS
from tests.golden import arms

EXHAUSTIVE = pytest.mark.exhaustive
TOLERANCE = 1e-4
"""Norm of the difference over the norm, as `benchmarks.sameness` has it."""


@pytest.mark.parametrize(
    ("arm", "pair"),
    [
        # Queries and keys are all that rotary positions change, and MiniLM compares them.
        pytest.param(arm, pair, marks=[EXHAUSTIVE] if pair == "rotary" and arm != "minilm" else [])
        for arm, pair in itertools.product(ARMS, arms.PAIRS)
    ],
)
def test_loss_and_every_gradient_equal_pytorch(arm: str, pair: str) -> None:
    """The batch has packing, padding and unused slots."""
    computed = arms.loss_and_gradients(arms.inputs(arm, pair))
    recorded = arms.recorded(arm, pair)
    assert computed.keys() == recorded.keys()
    assert len(computed) >= 20
    # A bias of the keys moves all scores of a query alike, so its gradient is 0, and rounding is
    # all that is there.
    largest = max(np.linalg.norm(expected) for expected in recorded.values())
    for path, expected in recorded.items():
        size = 1e-3 * largest if path.endswith("['key']['bias']") else np.linalg.norm(expected)
        assert np.linalg.norm(computed[path] - expected) < TOLERANCE * size, path
