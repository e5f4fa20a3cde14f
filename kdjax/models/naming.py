"""The names of tensors in checkpoints: Hugging Face's, old and new, by the kind of model, and our
own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdjax.errors import InputError

Tensors = dict[str, np.ndarray]

_ENCODER: dict[tuple[str, ...], str] = {
    ("embeddings", "word"): "embeddings.word_embeddings",
    ("embeddings", "position"): "embeddings.position_embeddings",
    ("embeddings", "type"): "embeddings.token_type_embeddings",
    ("embeddings", "norm"): "embeddings.LayerNorm",
    ("attention", "query"): "attention.self.query",
    ("attention", "key"): "attention.self.key",
    ("attention", "value"): "attention.self.value",
    ("attention", "output"): "attention.output.dense",
    ("ffn", "up"): "intermediate.dense",
    ("ffn", "down"): "output.dense",
}
_POST_NORM: dict[tuple[str, ...], str] = {
    ("attention_norm",): "attention.output.LayerNorm",
    ("ffn_norm",): "output.LayerNorm",
    ("mlm", "dense"): "cls.predictions.transform.dense",
    ("mlm", "norm"): "cls.predictions.transform.LayerNorm",
    ("mlm",): "cls.predictions",
}
_PRE_NORM: dict[tuple[str, ...], str] = {
    ("attention_norm",): "attention.LayerNorm",
    ("ffn_norm",): "intermediate.LayerNorm",
    ("final_norm",): "LayerNorm",
    ("mlm", "dense"): "lm_head.dense",
    ("mlm", "norm"): "lm_head.layer_norm",
    ("mlm",): "lm_head",
}

# Other heads read the encoder and change nothing in it; old versions of transformers stored index
# buffers, and a table of sines that no setting changes.
_NOT_READ = re.compile(
    r"pooler\.|cls\.(?!predictions\.)|embeddings\.(position|token_type)_ids$"
    r"|encoder\.embed_positions\.weight$"
)


@dataclass(frozen=True)
class Naming:
    """The names of tensors in one kind of checkpoint.

    Attributes:
        prefix: name that precedes the encoder's tensors in a model with an MLM head.
        head: name that precedes the MLM head's tensors.
        modules: a module's path in `Model.params` (in its layer, for a layer's) -> its name; empty:
            the dotted path itself, and nothing transposed.
    """

    prefix: str
    head: str
    modules: Mapping[tuple[str, ...], str]

    def name_of(self, path: tuple[Any, ...]) -> tuple[str, bool]:
        """Return the tensor that a parameter is stored as.

        Args:
            path: the parameter's key path in `Model.params`.

        Returns:
            Its name, without the prefix, and whether it is stored transposed.
        """
        keys = [str(key.key) for key in path]
        if not self.modules:
            return ".".join(keys), False
        *module, leaf = keys
        layer = ""
        if module[0] == "layers":
            # Theirs are counted from 0, ours from 1.
            layer = f"encoder.layer.{int(module[1]) - 1}."
            module = module[2:]
        kind = "bias" if leaf == "bias" else "weight"
        return f"{layer}{self.modules[tuple(module)]}.{kind}", leaf == "kernel"

    def full_name(self, name: str, *, mlm: bool) -> str:
        """Return a name with the prefix that it has in a model with or without an MLM head."""
        if mlm and not name.startswith(self.head):
            return self.prefix + name
        return name

    def has_mlm_head(self, tensors: Mapping[str, Any]) -> bool:
        """Return whether tensors, under their plain names, hold any of an MLM head's."""
        return any(name.startswith(self.head) for name in tensors)

    def plain(self, tensors: Mapping[str, np.ndarray], where: object) -> Tensors:
        """Return tensors under the names of `name_of`, without copies and what is not read.

        Raises:
            InputError: two different tensors under one name, or an MLM decoder that is not the word
                embedding.
        """
        if not self.modules:
            return dict(tensors)
        renamed: Tensors = {}
        for name, tensor in tensors.items():
            short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix(self.prefix))
            short = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)
            if _NOT_READ.match(short):
                continue
            if short in renamed:
                raise InputError(f"{where}: tensor {short!r} is there twice, under two names")
            renamed[short] = tensor
        _drop_copy(renamed, f"{self.head}decoder.bias", f"{self.head}bias", where)
        _drop_copy(
            renamed, f"{self.head}decoder.weight", "embeddings.word_embeddings.weight", where
        )
        return renamed


NAMINGS = {
    "bert": Naming("bert.", "cls.predictions.", {**_ENCODER, **_POST_NORM}),
    "roformer": Naming("roformer.", "cls.predictions.", {**_ENCODER, **_POST_NORM}),
    "roberta-prelayernorm": Naming("roberta_prelayernorm.", "lm_head.", {**_ENCODER, **_PRE_NORM}),
    "kdjax": Naming("", "mlm.", {}),
}
"""By `model_type` of config.json."""


def _drop_copy(tensors: Tensors, copy: str, original: str, where: object) -> None:
    """Drop a second name of a tensor that is stored under both or under the second alone."""
    if copy not in tensors:
        return
    tensor = tensors.pop(copy)
    if not np.array_equal(tensor, tensors.setdefault(original, tensor)):
        raise InputError(f"{where}: tensor {copy!r} differs from {original!r}, expected them tied")
