"""transformers' BERT and its Trainer with kdjax's parameters and rows: what fine-tuning and
training curves are compared with.

B rows of a batch, L tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks.bert_names import head_tensors
from kdjax import models
from kdjax.config import FinetuneConfig, ModelConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.evaluation.finetuning.results import Setting


def masked_lm(config: ModelConfig, params: Mapping[str, Any], attention: str = "eager") -> Any:
    """Return a `BertForMaskedLM` with kdjax's parameters, in training mode.

    Args:
        config: configuration of the model.
        params: its parameters, with an MLM head.
        attention: transformers' name of the implementation of attention.
    """
    return _loaded(BertForMaskedLM, config, params, attn_implementation=attention)


def classifier(
    config: ModelConfig, params: Mapping[str, Any], task: Task, attention: str = "sdpa"
) -> Any:
    """Return a `BertForSequenceClassification` with kdjax's parameters, in training mode.

    Args:
        config: configuration of the encoder.
        params: the encoder's parameters, and the head's as "task_head".
        task: what it is for: its classes, or a regression.
        attention: transformers' name of the implementation of attention.
    """
    encoder = {name: part for name, part in params.items() if name not in ("mlm", "task_head")}
    kind = "regression" if task.regression else "single_label_classification"
    model = _loaded(
        BertForSequenceClassification,
        config,
        encoder,
        attn_implementation=attention,
        num_labels=task.outputs,
        problem_type=kind,
    )
    # The head is not in the encoder's file: its tensors are copied.
    head = {name: torch.tensor(array) for name, array in head_tensors(params["task_head"]).items()}
    state = {**model.state_dict(), **head}
    model.load_state_dict(state)
    return model


def _loaded(kind: Any, config: ModelConfig, params: Any, **settings: Any) -> Any:
    """Load kdjax's parameters into one of transformers' classes."""
    # What a bare encoder lacks is drawn anew, and transformers would say so each time.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        models.save_pretrained(models.Model(config, params), Path(directory) / "model")
        return kind.from_pretrained(Path(directory) / "model", **settings).train()


class Rows(torch.utils.data.Dataset):
    """A split's rows as Trainer takes them, made once: lists would be slower to pad."""

    def __init__(self, split: Split, targets: np.ndarray) -> None:
        self._rows = []
        for row in range(len(split)):
            start = split.offsets[row]
            end = split.offsets[row + 1]
            second = end - start if split.second is None else split.second[row]
            types = (np.arange(end - start) >= second).astype(np.int64)
            tokens = split.tokens[start:end].astype(np.int64)
            self._rows.append(
                {"input_ids": tokens, "token_type_ids": types, "labels": targets[row]}
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._rows[row]


@dataclass
class Collator:
    """Pads the rows of a batch, and counts what it padded them to.

    It does less than transformers' own, which goes through a tokenizer.

    Attributes:
        length: tokens of every batch's rows; None: those of a batch's longest row.
        shapes: (B, L) of the batches made since it was last cleared.
    """

    length: int | None = None
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `token_type_ids`, `attention_mask` `[B, L]` and `labels` `[B]`."""
        length = self.length or max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), length)
        self.shapes.append(shape)
        tokens = np.zeros(shape, np.int64)
        types = np.zeros(shape, np.int64)
        mask = np.zeros(shape, np.int64)
        for number, row in enumerate(rows):
            size = len(row["input_ids"])
            tokens[number, :size] = row["input_ids"]
            types[number, :size] = row["token_type_ids"]
            mask[number, :size] = 1
        return {
            "input_ids": torch.from_numpy(tokens),
            "token_type_ids": torch.from_numpy(types),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(np.array([row["labels"] for row in rows])),
        }


def make_trainer(
    model: Any,
    rows: Rows,
    collator: Collator,
    settings: FinetuneConfig,
    setting: Setting,
    *,
    seed: int,
    directory: Path,
    sampling: str = "random",
) -> Trainer:
    """Return a Trainer with kdjax's settings; it saves and reports nothing.

    Args:
        model: the model.
        rows: training rows.
        collator: pads batches.
        settings: weight decay, epsilon, clipping and warm-up.
        setting: learning rate, batch size and epochs.
        seed: seed of the order of rows and of dropout.
        directory: an empty directory, which Trainer asks for.
        sampling: Trainer's name of the order of rows: "random" or "group_by_length".
    """
    steps_per_epoch = -(-len(rows) // setting.batch_size)
    arguments = TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=setting.epochs,
        per_device_train_batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup * steps_per_epoch * setting.epochs),
        weight_decay=settings.weight_decay,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=settings.eps,
        max_grad_norm=settings.clip,
        train_sampling_strategy=sampling,
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def predict(model: Any, rows: Rows, batch_size: int = 64) -> np.ndarray:
    """Return a model's outputs for rows, float32 `[N, outputs]`, in evaluation mode."""
    model.eval()
    collator = Collator()
    outputs = []
    with torch.no_grad():
        for first in range(0, len(rows), batch_size):
            last = min(first + batch_size, len(rows))
            batch = collator([rows[row] for row in range(first, last)])
            outputs.append(model(**batch).logits.numpy())
    return np.concatenate(outputs)
