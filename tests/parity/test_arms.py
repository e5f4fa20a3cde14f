"""The PyTorch that the speed benchmark compares with computes what kdjax computes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import sameness
from benchmarks.cases import ARMS
from tests.golden import arms, record_pytorch


@pytest.mark.parametrize("pair", arms.PAIRS)
@pytest.mark.parametrize("arm", ARMS)
def test_loss_and_every_gradient_equal_pytorch(arm: str, pair: str) -> None:
    """The batch has packing, padding and unused slots."""
    given = arms.inputs(arm, pair)
    found = sameness.differences(
        given.case, given.student, given.teacher, given.objective, given.batch
    )
    assert max(found.values()) < sameness.TOLERANCE
    assert len(found) >= 19


def test_comparison_fails_where_a_gradient_differs() -> None:
    """PyTorch learns from another teacher than kdjax."""
    given = arms.inputs("logit")
    another = arms.random_like(given.teacher, 5)
    found = sameness.differences(
        given.case, given.student, given.teacher, {}, given.batch, other_teacher=another
    )
    assert min(found.values()) > 10 * sameness.TOLERANCE


@pytest.mark.parametrize("pair", arms.PAIRS)
@pytest.mark.parametrize("arm", ARMS)
def test_recorded_numbers_are_what_pytorch_computes(arm: str, pair: str) -> None:
    found = record_pytorch.arm(arm, pair)
    recorded = arms.recorded(arm, pair)
    assert found.keys() == recorded.keys()
    for path, expected in recorded.items():
        scale = np.linalg.norm(expected)
        assert np.linalg.norm(found[path] - expected) <= 1e-5 * scale, path
