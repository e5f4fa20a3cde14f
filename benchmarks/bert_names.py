"""kdjax's parameters by transformers' names; needs no PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from kdjax import models
from kdjax.config import ModelConfig

HEAD = {
    "pooler": "bert.pooler.dense",
    "output": "classifier",
}
"""transformers' names of the two layers of a task's head."""


def head_tensors(head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a task head's parameters, or their gradients, by transformers' names."""
    tensors = {}
    for part, name in HEAD.items():
        tensors[f"{name}.weight"] = np.array(head[part]["kernel"]).T
        tensors[f"{name}.bias"] = np.array(head[part]["bias"])
    return tensors


def tensors_of(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return kdjax's parameters, or their gradients, by transformers' names and in its layout.

    Args:
        config: configuration of the model.
        params: a tree as of the model's parameters, with or without "task_head".
    """
    encoder = {name: part for name, part in params.items() if name != "task_head"}
    with tempfile.TemporaryDirectory() as directory:
        models.save_pretrained(models.Model(config, encoder), Path(directory) / "model")
        tensors = load_file(Path(directory) / "model" / "model.safetensors")
    # A bare encoder is stored without the name of what it is part of.
    named = {}
    for name, array in tensors.items():
        inside = name.startswith(("bert.", "cls."))
        named[name if inside else f"bert.{name}"] = array
    if "task_head" in params:
        named.update(head_tensors(params["task_head"]))
    return named
