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
    inputs = arms.inputs(arm, pair)
    differences = sameness.differences(
        inputs.case, inputs.student, inputs.teacher, inputs.objective, inputs.batch
    )
    assert max(differences.values()) < sameness.TOLERANCE
    # The loss and some twenty tensors: none was left out.
    assert len(differences) >= 19


def test_comparison_fails_where_a_gradient_differs() -> None:
    """PyTorch learns from another teacher than kdjax."""
    inputs = arms.inputs("logit")
    another = arms.random_like(inputs.teacher, 5)
    differences = sameness.differences(
        inputs.case, inputs.student, inputs.teacher, {}, inputs.batch, other_teacher=another
    )
    # Every gradient is off by more than the comparison allows.
    assert min(differences.values()) > 10 * sameness.TOLERANCE


@pytest.mark.parametrize("pair", arms.PAIRS)
@pytest.mark.parametrize("arm", ARMS)
def test_recorded_numbers_are_what_pytorch_computes(arm: str, pair: str) -> None:
    computed = record_pytorch.arm(arm, pair)
    recorded = arms.recorded(arm, pair)
    assert computed.keys() == recorded.keys()
    # Numbers differ by rounding where another PyTorch or processor adds up in another order. A
    # bias of keys has no gradient but rounding, which is of the size of the largest one's.
    largest = max(np.linalg.norm(expected) for expected in recorded.values())
    for path, expected in recorded.items():
        scale = max(np.linalg.norm(expected), 1e-2 * largest)
        assert np.linalg.norm(computed[path] - expected) <= 1e-5 * scale, path
