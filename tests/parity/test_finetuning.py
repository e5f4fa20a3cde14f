"""A step of fine-tuning computes what transformers' BERT for classification computes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch

from benchmarks import huggingface
from kdjax.config import FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.batches import StepRows
from kdjax.evaluation.finetuning.step import compiled_step, init_state
from kdjax.evaluation.finetuning.trial import make_batch, recipe_of
from kdjax.models import abstract_params, init_task_head
from tests.evaluation import handmade
from tests.golden.arms import random_like

MODEL = ModelConfig(
    layers=2,
    width=32,
    heads=2,
    ffn=48,
    vocab_size=57,
    max_positions=16,
    dropout=0.0,
    attention_dropout=0.0,
)
ROWS = 8
LENGTH = 16
TOLERANCE = 1e-5
FIRST_MOMENT = np.float32(1 - 0.9)
"""Share of the gradient in Adam's first moment after one step."""


def task_of(classes: tuple[str, ...], pairs: bool) -> Task:
    """Make a task with rows of unequal lengths, one or two texts each."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, LENGTH + 1, ROWS)
    tokens = rng.integers(5, MODEL.vocab_size, lengths.sum()).astype(np.int32)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    second = (lengths // 2).astype(np.int32) if pairs else None
    labels: Any = rng.normal(0, 1, ROWS).astype(np.float32)
    if classes:
        labels = rng.integers(0, len(classes), ROWS).astype(np.int32)
    split = Split(tokens, offsets, second, labels)
    metrics = ("accuracy",) if classes else ("pearson",)
    return Task("task", classes, metrics, split, split, {"task": split})


def random_params(task: Task) -> dict[str, Any]:
    """Draw an encoder and a head in which every parameter is away from its start."""
    encoder = random_like(abstract_params(MODEL, mlm=False), 0)
    head = random_like(jax.eval_shape(lambda: init_task_head(MODEL, task.outputs, 0)), 1)
    return {**encoder, "task_head": head}


def step_of_kdjax(task: Task, params: dict[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
    """Do one step; return its loss, and its gradients by transformers' names."""
    recipe = recipe_of(MODEL, task, FinetuneConfig(), handmade.alone(), "float32")
    state = init_state(recipe, {k: v for k, v in params.items() if k != "task_head"}, 0)
    state.params["model"]["task_head"] = jax.tree.map(np.array, params["task_head"])
    step_rows = StepRows(LENGTH, np.arange(ROWS)[None])
    batch = make_batch(task.train, task.train.labels, step_rows, 1)
    after, loss = compiled_step(recipe, 1)(state, batch, np.float32(1e-3))
    # The step hands out no gradients; Adam's first moment began at 0.
    moments = after.opt[0].mu["model"]
    grads = jax.tree.map(lambda moment: np.asarray(moment) / FIRST_MOMENT, moments)
    return float(loss), huggingface.tensors_of(MODEL, grads)


def step_of_transformers(task: Task, params: dict[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
    """Compute the same loss and gradients by `BertForSequenceClassification`."""
    model = huggingface.classifier(MODEL, params, task, attention="eager")
    labels = task.train.labels
    targets = labels if task.regression else labels.astype(np.int64)
    rows = huggingface.Rows(task.train, targets)
    batch = huggingface.Collator(LENGTH)([rows[row] for row in range(ROWS)])
    loss = model(**batch).loss
    loss.backward()
    grads = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return loss.item(), grads


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize(
    "classes", [("no", "yes"), ("no", "perhaps", "yes"), ()], ids=["two", "three", "number"]
)
def test_finetuning_loss_and_gradients_equal_transformers(
    classes: tuple[str, ...], pairs: bool
) -> None:
    task = task_of(classes, pairs)
    params = random_params(task)
    loss, grads = step_of_kdjax(task, params)
    expected_loss, expected = step_of_transformers(task, params)
    assert loss == pytest.approx(expected_loss, rel=TOLERANCE)

    assert grads.keys() == expected.keys()
    whole = np.sqrt(sum(np.square(grad).sum() for grad in expected.values()))
    for name, grad in expected.items():
        # A key's bias moves all scores of a query alike: its gradient is 0 but for rounding.
        scale = whole if name.endswith("key.bias") else np.linalg.norm(grad)
        assert scale > 0, name
        assert np.linalg.norm(grads[name] - grad) <= TOLERANCE * scale, name


def test_finetuning_comparison_fails_for_another_token_type() -> None:
    """Rows that are pairs to kdjax, and single texts to transformers."""
    params = random_params(task_of(("no", "yes"), True))
    loss, _ = step_of_kdjax(task_of(("no", "yes"), True), params)
    other_loss, _ = step_of_transformers(task_of(("no", "yes"), False), params)
    assert abs(loss - other_loss) > 100 * TOLERANCE * loss


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
