"""The names of a model's tensors in a checkpoint, both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kdjax.errors import InputError

Tensors = dict[str, np.ndarray]
Path = tuple[str, ...]

_BUFFERS = r"embeddings\.(position|token_type)_ids$"
"""Index buffers that old versions of transformers stored."""
_TASK_HEAD = re.compile(r"(pre_)?classifier\.|qa_outputs\.|sequence_summary\.")
"""Tensors of transformers' heads for classifying sequences or tokens, questions and choices."""


class Place(NamedTuple):
    """Where a checkpoint has a parameter.

    Attributes:
        name: name of the tensor, without the prefix that it has beside an MLM head.
        part: number of the parameter in the tensor, from 0.
        parts: how many parameters lie one after another along the tensor's first axis.
        transposed: whether a matrix is stored as `[out, in]`.
    """

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False


class Part(NamedTuple):
    """A module that is stored in one tensor with others: its name there, and its place."""

    name: str
    part: int
    parts: int


@dataclass(frozen=True)
class Naming:
    """The names of tensors in one kind of checkpoint.

    Attributes:
        prefix: name that precedes the encoder's tensors in a model with an MLM head.
        layer: name that precedes a layer's tensors, with {} for its number from 0.
        heads: names that precede the MLM head's tensors.
        modules: a module's path in `Model.params` (in its layer, for a layer's) -> its name.
        copies: second name of a tensor that some files have -> its name.
        not_read: pattern of tensors that no feature depends on, besides heads for tasks: poolers,
            other heads of pretraining, buffers.
        shared_head: names that precede tensors of the MLM head, or of a task's head where the
            checkpoint has one.
    """

    prefix: str
    layer: str
    heads: tuple[str, ...]
    modules: Mapping[Path, str | Part]
    copies: Mapping[str, str] = field(default_factory=dict)
    not_read: str = r"pooler\."
    shared_head: tuple[str, ...] = ()

    def place(self, path: tuple[Any, ...]) -> Place:
        """Return the tensors, or parts of them, in which a parameter is stored.

        Args:
            path: the parameter's key path in `Model.params`.
        """
        *module, leaf = [str(key.key) for key in path]
        layer = ""
        if module[0] == "layers":
            # Theirs are counted from 0, ours from 1.
            layer = self.layer.format(int(module[1]) - 1)
            module = module[2:]
        stored = self.modules[tuple(module)]
        part = stored if isinstance(stored, Part) else Part(stored, 0, 1)
        kind = "bias" if leaf == "bias" else "weight"
        return Place(f"{layer}{part.name}.{kind}", part.part, part.parts, leaf == "kernel")

    def full_name(self, name: str, *, mlm: bool) -> str:
        """Return a tensor's name as files have it.

        Args:
            name: name without the model's prefix.
            mlm: whether the file holds an MLM head: then all names but the head's are prefixed.
        """
        if mlm and not name.startswith(self.heads):
            return self.prefix + name
        return name

    def has_mlm_head(self, tensors: Mapping[str, Any]) -> bool:
        """Return whether tensors, under their plain names, hold any of an MLM head's."""
        return any(name.startswith(self.heads) for name in tensors)

    def plain(self, tensors: Mapping[str, np.ndarray], where: object) -> Tensors:
        """Return a file's tensors under the names of `place`.

        Left out are second copies of a tensor, heads of tasks, and what no encoder here reads.

        Args:
            tensors: name in the file -> tensor.
            where: the file, for messages.

        Raises:
            InputError: two different tensors under one name, or an MLM decoder that is not the word
                embedding.
        """
        not_read = re.compile(rf"{self.not_read}|{_BUFFERS}")
        heads_of_tasks = self.shared_head if any(map(_TASK_HEAD.match, tensors)) else ()
        renamed: Tensors = {}
        for name, tensor in tensors.items():
            short = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name.removeprefix(self.prefix))
            short = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", short)
            if not_read.match(short) or _TASK_HEAD.match(short):
                continue
            if short.startswith(heads_of_tasks):
                continue
            if short in renamed:
                raise InputError(f"{where}: tensor {short!r} is there twice, under two names")
            renamed[short] = tensor
        for copy, original in self.copies.items():
            _drop_copy(renamed, copy, original, where)
        return renamed


@dataclass(frozen=True)
class DottedPaths(Naming):
    """Parameters under their own paths, untransposed: models that no class of transformers has."""

    def place(self, path: tuple[Any, ...]) -> Place:
        """Return the dotted path."""
        return Place(".".join(str(key.key) for key in path))

    def plain(self, tensors: Mapping[str, np.ndarray], where: object) -> Tensors:
        """Return the tensors as they are."""
        return dict(tensors)


def _drop_copy(tensors: Tensors, copy: str, original: str, where: object) -> None:
    """Drop a second name of a tensor that is stored under both or under the second alone."""
    if copy not in tensors:
        return
    tensor = tensors.pop(copy)
    if not np.array_equal(tensor, tensors.setdefault(original, tensor)):
        raise InputError(f"{where}: tensor {copy!r} differs from {original!r}, expected them tied")
