"""A student cut out of its teacher by structured pruning: whole heads, feed-forward units and
channels of the residual stream.

What is kept is the teacher's own numbers, so a student that keeps everything is the teacher, and
units or heads that are 0 are cut without a trace. Channels are not: a LayerNorm's mean and variance
are over all of them, and the student's are over those that are kept, as in Minitron (Muralidharan
et al. 2024, arXiv 2407.14679).
Letters: D width, H heads, d head width, F width of the feed-forward block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.config import ModelConfig
from kdjax.training.starts.importance import Importance, largest

Params = dict[str, Any]


def prune(
    params: Params, teacher_config: ModelConfig, student_config: ModelConfig, importance: Importance
) -> Params:
    """Cut the parameters of a student out of those of a teacher with as many layers.

    Args:
        params: the teacher's parameters, with the layers that are kept and as many positions and
            types as the student has.
        teacher_config: configuration of the teacher.
        student_config: configuration of the student, whose heads are as wide as the teacher's.
        importance: importances of the teacher's parts, by the numbers of the layers that are kept.
    """
    # The same channels everywhere, as they are one residual stream.
    channels = largest(importance.channels, student_config.width)
    embeddings: Params = {}
    for name, part in params["embeddings"].items():
        if name == "norm":
            embeddings[name] = _norm(part, channels)
        else:
            embeddings[name] = {"embedding": part["embedding"][:, channels]}
    pruned: Params = {"embeddings": embeddings, "layers": {}}

    # Heads and units are each layer's own.
    for number, layer in params["layers"].items():
        heads = largest(importance.heads[int(number)], student_config.heads)
        columns = _columns(heads, teacher_config.head_width)
        units = largest(importance.units[int(number)], student_config.ffn)
        pruned["layers"][number] = {
            "attention": {
                "query": _linear(layer["attention"]["query"], channels, columns),
                "key": _linear(layer["attention"]["key"], channels, columns),
                "value": _linear(layer["attention"]["value"], channels, columns),
                "output": _linear(layer["attention"]["output"], columns, channels),
            },
            "attention_norm": _norm(layer["attention_norm"], channels),
            "ffn": {
                "up": _linear(layer["ffn"]["up"], channels, units),
                "down": _linear(layer["ffn"]["down"], units, channels),
            },
            "ffn_norm": _norm(layer["ffn_norm"], channels),
        }
    if "final_norm" in params:
        pruned["final_norm"] = _norm(params["final_norm"], channels)
    if "mlm" in params:
        pruned["mlm"] = {
            "dense": _linear(params["mlm"]["dense"], channels, channels),
            "norm": _norm(params["mlm"]["norm"], channels),
            "bias": params["mlm"]["bias"],
        }
    return pruned


def _columns(heads: Sequence[int], head_width: int) -> list[int]:
    """Return the columns of some heads in a matrix that has all heads side by side."""
    places = np.asarray(heads)[:, None] * head_width + np.arange(head_width)
    columns: list[int] = places.ravel().tolist()
    return columns


def _linear(part: Params, inputs: Sequence[int], outputs: Sequence[int]) -> Params:
    """Return a linear layer of some of its inputs and outputs."""
    kernel = part["kernel"][np.ix_(inputs, outputs)]
    return {"kernel": kernel, "bias": part["bias"][np.asarray(outputs)]}


def _norm(part: Params, channels: Sequence[int]) -> Params:
    """Return a LayerNorm over some of its channels."""
    return {name: values[np.asarray(channels)] for name, values in part.items()}
