"""Parameters of a run as a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kdjax.errors import InputError
from kdjax.training.checkpoints.failure import reason_of
from kdjax.training.partition import flatten


def save_params(path: Path, params: Any) -> None:
    """Write parameters as safetensors, whole or not at all; a tensor's name is its dotted path.

    Raises:
        InputError: it cannot be written.
    """
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in flatten(params).items()}
    write_tensors(path, tensors)


def write_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as safetensors, whole or not at all.

    Args:
        path: path of the file.
        tensors: contiguous arrays by name.
        metadata: strings by name that the file holds besides; None: there are none.

    Raises:
        InputError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), unfinished, metadata=metadata)
        unfinished.replace(path)
    except (OSError, SafetensorError) as e:
        unfinished.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written ({reason_of(e)}), expected room for it; then run it again"
        ) from None


def load_params(path: Path) -> dict[str, Any]:
    """Read a file of `save_params` as the nested tree that was saved.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as e:
        raise InputError(
            f"{path}: cannot be read ({reason_of(e)}), expected the parameters of a finished run"
        ) from None
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *branches, leaf = name.split(".")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[leaf] = tensor
    return tree
