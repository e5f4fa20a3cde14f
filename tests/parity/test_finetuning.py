"""A step of fine-tuning computes what transformers' BERT for classification computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import huggingface
from kdjax.data.tasks.task import Split
from tests.golden import finetuning, record_pytorch


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("labels", finetuning.CLASSES)
def test_finetuning_loss_and_gradients_equal_transformers(labels: str, pairs: bool) -> None:
    task = finetuning.task_of(labels, pairs)
    expected = record_pytorch.finetuning_step(task)
    finetuning.assert_equal(*finetuning.step_of_kdjax(task), *expected)


def test_finetuning_comparison_fails_for_other_token_types() -> None:
    """Rows that are pairs to kdjax, and single texts to transformers."""
    loss, _ = finetuning.step_of_kdjax(finetuning.task_of("two", True))
    other_loss, _ = record_pytorch.finetuning_step(finetuning.task_of("two", False))
    assert abs(loss - other_loss) > 10 * finetuning.TOLERANCE * loss


@pytest.mark.parametrize(("labels", "pairs"), finetuning.RECORDED)
def test_recorded_finetuning_is_what_pytorch_computes(labels: str, pairs: bool) -> None:
    computed = record_pytorch.finetuning_step(finetuning.task_of(labels, pairs))
    finetuning.assert_equal(*computed, *finetuning.recorded(labels, pairs))


@pytest.mark.parametrize("length", [None, 12])
def test_collator_pads_rows_and_masks_padding(length: int | None) -> None:
    tokens = np.arange(1, 8, dtype=np.int32)
    split = Split(tokens, np.array([0, 3, 7]), np.array([2, 2], np.int32), np.array([0, 1]))
    rows = huggingface.Rows(split, np.array([0, 1]))
    batch = huggingface.Collator(length)([rows[0], rows[1]])
    padding = [0] * ((length or 4) - 4)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, *padding], [4, 5, 6, 7, *padding]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, *padding], [1, 1, 1, 1, *padding]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1, 0, *padding], [0, 0, 1, 1, *padding]]
    assert torch.equal(batch["labels"], torch.tensor([0, 1]))
