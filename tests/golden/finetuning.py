"""A step of fine-tuning on a small batch: what PyTorch's loss and gradients were recorded for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.bert_names import tensors_of
from kdjax.config import FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.batches import StepRows
from kdjax.evaluation.finetuning.step import compiled_step, init_state
from kdjax.evaluation.finetuning.trial import EncoderSetup, make_batch, step_key_of
from kdjax.models import abstract_params, init_task_head
from tests.evaluation import handmade
from tests.golden.arms import random_like

MODEL = ModelConfig(
    layers=2,
    width=16,
    heads=2,
    ffn=24,
    vocab_size=41,
    max_positions=16,
    dropout=0.0,
    attention_dropout=0.0,
)
ROWS = 8
LENGTH = 16
TOLERANCE = 1e-5
CANCELLED = 0.01
"""A gradient smaller than this share of all gradients together is held to that share."""
FIRST_MOMENT = np.float32(1 - 0.9)
"""Share of the gradient in Adam's first moment after one step."""
CLASSES: dict[str, tuple[str, ...]] = {
    "two": ("no", "yes"),
    "three": ("no", "perhaps", "yes"),
    "number": (),
}
RECORDED = (("two", True), ("number", False))
"""Kind of the labels, and whether rows are pairs, of the cases that are recorded."""
PATH = Path(__file__).parent / "pytorch_finetuning.npz"


def task_of(labels: str, pairs: bool) -> Task:
    """Make a task with rows of unequal lengths.

    Args:
        labels: a key of `CLASSES`.
        pairs: whether a row has two texts.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, LENGTH + 1, ROWS)
    tokens = rng.integers(5, MODEL.vocab_size, lengths.sum()).astype(np.int32)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    second = (lengths // 2).astype(np.int32) if pairs else None
    classes = CLASSES[labels]
    targets: Any = rng.normal(0, 1, ROWS).astype(np.float32)
    if classes:
        targets = rng.integers(0, len(classes), ROWS).astype(np.int32)
    split = Split(tokens, offsets, second, targets)
    metrics = ("accuracy",) if classes else ("pearson",)
    return Task("task", classes, metrics, split, split, {"task": split})


def random_params(task: Task) -> dict[str, Any]:
    """Draw an encoder and a head ("task_head") in which every parameter is away from its start."""
    encoder = random_like(abstract_params(MODEL, mlm=False), 0)
    head = random_like(jax.eval_shape(lambda: init_task_head(MODEL, task.outputs, 0)), 1)
    return {**encoder, "task_head": head}


def step_of_kdjax(task: Task) -> tuple[float, dict[str, np.ndarray]]:
    """Do one step; return its loss, and its gradients by transformers' names."""
    params = random_params(task)
    step_key = step_key_of(EncoderSetup(MODEL, handmade.alone()), task, FinetuneConfig())
    head = params.pop("task_head")
    state = init_state(step_key, params, 0)
    state.params["model"]["task_head"] = jax.tree.map(np.array, head)
    step_rows = StepRows(LENGTH, np.arange(ROWS)[None])
    batch = make_batch(task.train, task.train.labels, step_rows, 1)
    after, loss = compiled_step(step_key, 1)(state, batch, np.float32(1e-3))
    # The step hands out no gradients; Adam's first moment began at 0.
    moments = after.opt[0].mu["model"]
    grads = jax.tree.map(lambda moment: np.asarray(moment) / FIRST_MOMENT, moments)
    return float(loss), tensors_of(MODEL, grads)


def assert_equal(
    loss: float,
    grads: dict[str, np.ndarray],
    expected_loss: float,
    expected: dict[str, np.ndarray],
) -> None:
    """Assert that loss and gradients are the same but for rounding."""
    assert abs(loss - expected_loss) <= TOLERANCE * abs(expected_loss)
    assert grads.keys() == expected.keys()
    whole = np.sqrt(sum(np.square(grad).sum() for grad in expected.values()))
    for name, grad in expected.items():
        # Sums that cancel have the rounding of what they add up: a key's bias, whose gradient is
        # 0 but for rounding, and the head's bias of two classes of about as many rows.
        scale = max(np.linalg.norm(grad), CANCELLED * whole)
        assert np.linalg.norm(grads[name] - grad) <= TOLERANCE * scale, name


def recorded(labels: str, pairs: bool) -> tuple[float, dict[str, np.ndarray]]:
    """Read PyTorch's loss and gradients, by transformers' names.

    Args:
        labels: a key of `CLASSES`.
        pairs: whether rows are pairs.
    """
    prefix = f"{labels}:{pairs}:"
    with np.load(PATH) as archive:
        arrays = {
            name.removeprefix(prefix): x for name, x in archive.items() if name.startswith(prefix)
        }
    return float(arrays.pop("loss")), arrays
