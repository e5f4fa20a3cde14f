"""The names Hugging Face gives the tensors of a BERT checkpoint, old and new."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.errors import InputError

Tensors = dict[str, np.ndarray]

_MODULES = {
    ("embeddings", "word"): "embeddings.word_embeddings",
    ("embeddings", "position"): "embeddings.position_embeddings",
    ("embeddings", "type"): "embeddings.token_type_embeddings",
    ("embeddings", "norm"): "embeddings.LayerNorm",
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("attention_norm",): "attention.output.LayerNorm",
    ("ffn", "up"): "intermediate.dense",
    ("ffn", "down"): "output.dense",
    ("ffn_norm",): "output.LayerNorm",
    ("mlm", "dense"): "cls.predictions.transform.dense",
    ("mlm", "norm"): "cls.predictions.transform.LayerNorm",
    ("mlm",): "cls.predictions",
}

# Other heads read the encoder and change nothing in it; old versions of transformers stored index buffers.
_NOT_READ = re.compile(r"pooler\.|cls\.(?!predictions\.)|embeddings\.(position|token_type)_ids$")


def name_of(path: tuple[Any, ...]) -> tuple[str, bool]:
    """A parameter's tensor.

    Args:
        path: the parameter's key path in `Model.params`.

    Returns:
        Its name, without the prefix `bert.`, and whether it is stored transposed.
    """
    *module, leaf = (str(key.key) for key in path)
    layer = ""
    if module[0] == "layers":
        layer, module = f"encoder.layer.{int(module[1]) - 1}.", module[2:]
    return f"{layer}{_MODULES[tuple(module)]}.{'bias' if leaf == 'bias' else 'weight'}", leaf == "kernel"


def has_mlm_head(tensors: Mapping[str, Any]) -> bool:
    """Whether tensors, under their plain names, hold an MLM head or a piece of one."""
    return any(name.startswith("cls.predictions.") for name in tensors)


def plain(tensors: Mapping[str, np.ndarray], where: object) -> Tensors:
    """Tensors under the names `name_of` gives: no prefix, no legacy names, no copies, nothing that is not read.

    Raises:
        InputError: two different tensors under one name, or an MLM decoder that is not the word embedding.
    """
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix("bert."))
        short = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)
        if _NOT_READ.match(short):
            continue
        if short in renamed:
            raise InputError(f"{where}: tensor {short!r} is there twice, under two names")
        renamed[short] = tensor
    _drop_copy(renamed, "cls.predictions.decoder.bias", "cls.predictions.bias", where)
    _drop_copy(renamed, "cls.predictions.decoder.weight", "embeddings.word_embeddings.weight", where)
    return renamed


def _drop_copy(tensors: Tensors, copy: str, original: str, where: object) -> None:
    if copy not in tensors:
        return
    found = tensors.pop(copy)
    if not np.array_equal(found, tensors.setdefault(original, found)):
        raise InputError(f"{where}: tensor {copy!r} differs from {original!r}, expected them tied")
