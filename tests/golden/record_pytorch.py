"""Record what PyTorch computes, for tests that compare kdjax with it where PyTorch is not
installed.

    make test-parity                      # makes the environment, .venv-parity
    .venv-parity/bin/python -m tests.golden.record_pytorch

writes, below `tests/golden/`:

    pytorch/masked_lm/, encoder/, pretraining/, sharded/    random BERTs as transformers saves them
    pytorch/default_config.json                             all settings of a `BertConfig()`
    pytorch/*.npz                                           a batch and one model's features on it
    pytorch_arms.npz                                        loss and gradients of the paper's arms
    pytorch_finetuning.npz                                  the same of steps of fine-tuning

`tests/parity/` compares the same numbers with PyTorch as it is now.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining, BertModel

from benchmarks import huggingface
from benchmarks.cases import ARMS
from benchmarks.torch_arms import Torch, named
from kdjax.data.tasks.task import Task
from tests.golden import arms, finetuning, pytorch
from tests.parity import bert

MINILM_LAYERS = (1, 3, 6)
"""Layers of all-MiniLM-L6-v2 whose features are recorded; all would be a megabyte."""
TEXTS = ["The river froze early.", "A short one."]


def batch(sizes: list[int], length: int, seed: int) -> dict[str, np.ndarray]:
    """Make random tokens and token types, one document a row, padded to a length."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length) < np.array(sizes)[:, None]
    return {
        "tokens": np.where(mask, rng.integers(1, bert.SETTINGS["vocab_size"], mask.shape), 0),
        "mask": mask,
        "types": np.where(mask, rng.integers(0, 2, mask.shape), 0),
    }


def padded(act: str) -> pytorch.Recorded:
    """Record a padded batch through the masked language model with one of the activations."""
    model = BertForMaskedLM.from_pretrained(
        pytorch.DIRECTORY / "masked_lm", attn_implementation="eager", hidden_act=act
    ).eval()
    inputs = batch([16, 9, 4], 16, seed=1)
    return {**inputs, **bert.features(model, inputs["tokens"], inputs["mask"], inputs["types"])}


def documents() -> pytorch.Recorded:
    """Record documents that each went through the masked language model alone; then they are padded
    to one length."""
    model = BertForMaskedLM.from_pretrained(
        pytorch.DIRECTORY / "masked_lm", attn_implementation="eager"
    ).eval()
    sizes = list(itertools.chain.from_iterable(pytorch.PACKED))
    inputs = batch(sizes, max(sizes), seed=2)
    alone = []
    for row, size in enumerate(sizes):
        part = slice(row, row + 1), slice(0, size)
        alone.append(bert.features(model, inputs["tokens"][part], None, inputs["types"][part]))

    def join(*arrays: np.ndarray) -> np.ndarray:
        whole = np.zeros((len(sizes), *np.max([x.shape[1:] for x in arrays], axis=0)), np.float32)
        for row, x in enumerate(arrays):
            whole[(row, *(slice(0, size) for size in x.shape[1:]))] = x[0]
        return whole

    return {**inputs, **jax.tree.map(join, *alone)}


def encoder() -> pytorch.Recorded:
    """Record a padded batch through the encoder without a head."""
    model = BertModel.from_pretrained(
        pytorch.DIRECTORY / "encoder", attn_implementation="eager"
    ).eval()
    inputs = batch([16, 7], 16, seed=3)
    return {**inputs, **bert.features(model, inputs["tokens"], inputs["mask"], inputs["types"])}


def pretraining() -> pytorch.Recorded:
    """Record a batch through the model with both heads of BERT's pretraining."""
    model = BertForPreTraining.from_pretrained(
        pytorch.DIRECTORY / "pretraining", attn_implementation="eager"
    ).eval()
    inputs = batch([16], 16, seed=4)
    return {**inputs, **bert.features(model, inputs["tokens"], inputs["mask"], inputs["types"])}


def minilm() -> pytorch.Recorded:
    """Record two sentences through all-MiniLM-L6-v2, which the demo's data packages hold."""
    directory = pytorch.minilm_directory()
    assert directory is not None, "expected the packages of requirements-data.txt"
    encoded = AutoTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="np")
    inputs = {
        "tokens": encoded["input_ids"],
        "mask": encoded["attention_mask"] == 1,
        "types": encoded["token_type_ids"],
    }
    model = BertModel.from_pretrained(directory, attn_implementation="eager").eval()
    features = bert.features(model, inputs["tokens"], inputs["mask"], inputs["types"])
    recorded: pytorch.Recorded = dict(inputs)
    for name, layers in features.items():
        wanted = (0, *MINILM_LAYERS) if name == "hidden" else MINILM_LAYERS
        recorded[name] = {layer: layers[layer] for layer in wanted}
    return recorded


RECORDINGS: dict[str, Callable[[], pytorch.Recorded]] = {
    "gelu": lambda: padded("gelu"),
    "gelu_new": lambda: padded("gelu_new"),
    "gelu_pytorch_tanh": lambda: padded("gelu_pytorch_tanh"),
    "documents": documents,
    "encoder": encoder,
    "pretraining": pretraining,
    "minilm": minilm,
}
"""What is recorded, by the name of its file."""


def arm(name: str, pair: str = "bert") -> dict[str, np.ndarray]:
    """Compute PyTorch's loss and gradients of an arm, by kdjax's paths and in its layout."""
    inputs = arms.inputs(name, pair)
    torch_arm = Torch(
        inputs.case, inputs.student, inputs.teacher, [inputs.batch], objective=inputs.objective
    )
    loss, gradients = torch_arm.gradients()
    recorded: dict[str, Any] = {"loss": np.float32(loss)}

    # Where each number of kdjax's parameters goes in PyTorch is where its own index goes.
    params = {"model": inputs.student, "objective": inputs.objective}
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])
    numbered = [
        np.arange(end - leaf.size, end, dtype=np.float32).reshape(leaf.shape)
        for end, leaf in zip(ends, leaves, strict=True)
    ]
    flat = np.full(ends[-1], np.nan, np.float32)
    places = named(jax.tree.unflatten(structure, numbered))
    for path, gradient in gradients.items():
        flat[places[path].astype(int)] = gradient

    # A parameter without a gradient is left out.
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for path, leaf, end in zip(paths, leaves, ends, strict=True):
        values = flat[end - leaf.size : end].reshape(leaf.shape)
        if not np.isnan(values).any():
            recorded[path] = values
    return recorded


def finetuning_step(task: Task) -> tuple[float, dict[str, np.ndarray]]:
    """Compute loss and gradients of fine-tuning by `BertForSequenceClassification`, by its names.

    Args:
        task: one that `tests.golden.finetuning.task_of` makes.
    """
    params = finetuning.random_params(task)
    model = huggingface.classifier(finetuning.MODEL, params, task, attention="eager")
    labels = task.train.labels
    rows = huggingface.Rows(task.train, labels if task.regression else labels.astype(np.int64))
    collator = huggingface.Collator(finetuning.LENGTH)
    loss = model(**collator([rows[row] for row in range(len(rows))])).loss
    loss.backward()
    grads = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return loss.item(), grads


def save_finetuning(path: Path) -> None:
    """Write loss and gradients of the steps of fine-tuning that are recorded."""
    recorded: dict[str, Any] = {}
    for labels, pairs in finetuning.RECORDED:
        loss, grads = finetuning_step(finetuning.task_of(labels, pairs))
        prefix = f"{labels}:{pairs}"
        recorded[f"{prefix}:loss"] = np.float32(loss)
        for name, grad in grads.items():
            recorded[f"{prefix}:{name}"] = grad
    np.savez_compressed(path, **recorded)


def save_models(directory: Path) -> None:
    """Write the random models and the default settings."""
    bert.random_bert(BertForMaskedLM).save_pretrained(directory / "masked_lm")
    bert.random_bert(BertModel).save_pretrained(directory / "encoder")
    bert.random_bert(BertForPreTraining).save_pretrained(directory / "pretraining")
    masked_lm = BertForMaskedLM.from_pretrained(directory / "masked_lm")
    masked_lm.save_pretrained(directory / "sharded", max_shard_size="30KB")
    BertConfig().save_pretrained(directory / "default")
    (directory / "default" / "config.json").rename(directory / "default_config.json")
    (directory / "default").rmdir()


def main() -> None:
    """Write all of it anew."""
    torch.set_num_threads(1)
    shutil.rmtree(pytorch.DIRECTORY, ignore_errors=True)
    pytorch.DIRECTORY.mkdir()
    save_models(pytorch.DIRECTORY)
    for name, record in RECORDINGS.items():
        pytorch.write(name, record())
    recorded: dict[str, Any] = {}
    for name in ARMS:
        for pair in arms.PAIRS:
            recorded.update({f"{pair}:{name}:{path}": x for path, x in arm(name, pair).items()})
    np.savez_compressed(arms.PATH, **recorded)
    save_finetuning(finetuning.PATH)


if __name__ == "__main__":
    main()
