"""How transformers stores fine-tuned models: the class for sequence classification of each
`model_type`, the names of its head's tensors, and what config.json says of the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdjax.config import ModelConfig, Pooling
from kdjax.errors import InputError
from kdjax.models.families import transformers_classes
from kdjax.models.families.naming import Tensors


@dataclass(frozen=True)
class StoredTaskHead:
    """A class of transformers for sequence classification whose outputs are those of our head.

    Attributes:
        class_name: name of the class.
        modules: module of our head -> its name in the class.
        dropout: setting of config.json that is the head's dropout; empty: that of the layers.
        pooling: setting of config.json that says what the head reads; empty: the first token alone.
    """

    class_name: str
    modules: Mapping[str, str]
    dropout: str = "classifier_dropout"
    pooling: str = ""


_POOLER = {"pooler": "bert.pooler.dense", "output": "classifier"}
_TWO_LAYERS = {"pooler": "classifier.dense", "output": "classifier.out_proj"}
TASK_HEADS: dict[str, StoredTaskHead] = {
    "bert": StoredTaskHead("BertForSequenceClassification", _POOLER),
    "megatron-bert": StoredTaskHead("MegatronBertForSequenceClassification", _POOLER, dropout=""),
    "roberta": StoredTaskHead("RobertaForSequenceClassification", _TWO_LAYERS),
    "xlm-roberta": StoredTaskHead("XLMRobertaForSequenceClassification", _TWO_LAYERS),
    "camembert": StoredTaskHead("CamembertForSequenceClassification", _TWO_LAYERS),
    "roberta-prelayernorm": StoredTaskHead(
        "RobertaPreLayerNormForSequenceClassification", _TWO_LAYERS
    ),
    "esm": StoredTaskHead("EsmForSequenceClassification", _TWO_LAYERS, dropout=""),
    "distilbert": StoredTaskHead(
        "DistilBertForSequenceClassification",
        {"pooler": "pre_classifier", "output": "classifier"},
        dropout="seq_classif_dropout",
    ),
    "modernbert": StoredTaskHead(
        "ModernBertForSequenceClassification",
        {"pooler": "head.dense", "norm": "head.norm", "output": "classifier"},
        pooling="classifier_pooling",
    ),
}
"""The classes, by `model_type`. RoFormer's is not among them: its head has the layers' activation
where ours has tanh."""


@dataclass(frozen=True)
class FinetunedHead:
    """A head that was fine-tuned on a task, to be stored with its encoder.

    Attributes:
        params: parameters of the head, as `init_task_head` makes them.
        pool: what the head reads of the last layer.
        classes: names of the classes in the order of their indices; empty for a regression, whose
            output is a number in the labels' own unit.
    """

    params: Mapping[str, Any] = field(repr=False)
    pool: Pooling
    classes: tuple[str, ...]


def check_head_exportable(config: ModelConfig, pool: Pooling) -> None:
    """Check that a class of transformers computes a model with a head for a task.

    Args:
        config: configuration of the encoder.
        pool: what the head reads of the last layer.

    Raises:
        InputError: no class does; the message says what stands in its way, and which could.
    """
    transformers_classes.check_exportable(config)
    stored = transformers_classes.class_of(config)
    assert stored is not None
    head = TASK_HEADS.get(stored.model_type)
    if head is None:
        raise InputError(
            f"model: fine-tuned, it is of no class of transformers: {stored.model_type}'s head has "
            "the layers' activation in place of tanh; heads of models with learned positions, and "
            "of pre-LN ones with rotary positions and no token types, can be exported; without a "
            "task the encoder can"
        )
    if pool != "first" and not head.pooling:
        raise InputError(
            f"model: evaluation.finetune.pool is {pool!r}, expected 'first', which is what "
            f"{head.class_name} reads; of family modernbert heads may read the mean"
        )


def head_settings(config: ModelConfig, model_type: str, head: FinetunedHead) -> dict[str, Any]:
    """Build what config.json says of a head besides what it says of the encoder.

    Args:
        config: configuration of the encoder.
        model_type: the encoder's `model_type`.
        head: head that is stored.
    """
    stored = TASK_HEADS[model_type]
    settings: dict[str, Any] = {"architectures": [stored.class_name]}
    if head.classes:
        names = dict(enumerate(head.classes))
        settings["problem_type"] = "single_label_classification"
    else:
        names = {0: "LABEL_0"}
        settings["problem_type"] = "regression"
    settings["id2label"] = {str(number): name for number, name in names.items()}
    settings["label2id"] = {name: number for number, name in names.items()}
    if stored.dropout:
        settings[stored.dropout] = config.dropout
    if stored.pooling:
        settings[stored.pooling] = "cls" if head.pool == "first" else "mean"
    return settings


def write_with_head(config: ModelConfig, params: Any, head: FinetunedHead) -> Tensors:
    """Return an encoder's parameters and those of a head as the tensors of a checkpoint.

    Args:
        config: configuration of the encoder, which `check_head_exportable` lets pass.
        params: its parameters, without an MLM head.
        head: head that is stored with it.
    """
    stored = transformers_classes.class_of(config)
    assert stored is not None
    tensors = {}
    for name, tensor in transformers_classes.write_tensors(config, params).items():
        tensors[stored.naming.prefix + name] = tensor
    for module, name in TASK_HEADS[stored.model_type].modules.items():
        # A linear layer's kernel is stored transposed; a LayerNorm has a scale.
        for leaf, values in head.params[module].items():
            array = np.asarray(values, np.float32)
            if leaf == "kernel":
                array = array.T
            kind = "bias" if leaf == "bias" else "weight"
            tensors[f"{name}.{kind}"] = np.ascontiguousarray(array)
    return tensors
