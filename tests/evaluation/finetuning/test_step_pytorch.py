"""A step of fine-tuning equals what transformers' BERT for classification computed in PyTorch."""

from __future__ import annotations

import pytest

from tests.golden import finetuning


@pytest.mark.parametrize(("labels", "pairs"), finetuning.RECORDED)
def test_finetuning_loss_and_gradients_equal_recorded_pytorch(labels: str, pairs: bool) -> None:
    step = finetuning.step_of_kdjax(finetuning.task_of(labels, pairs))
    finetuning.assert_equal(*step, *finetuning.recorded(labels, pairs))


def test_finetuning_comparison_fails_for_other_token_types() -> None:
    """Rows of single texts, held against the recorded gradients of pairs."""
    step = finetuning.step_of_kdjax(finetuning.task_of("two", False))
    with pytest.raises(AssertionError):
        finetuning.assert_equal(*step, *finetuning.recorded("two", True))
