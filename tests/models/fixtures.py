"""The types of this directory's fixtures, and rows of packed documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdjax.config import ModelConfig

ConfigWith = Callable[..., ModelConfig]
"""Makes a small config that differs in some settings."""
BatchOf = Callable[..., dict[str, np.ndarray]]
"""Makes a batch of packed documents."""
Scramble = Callable[..., Any]
"""Moves every parameter away from its start."""


def packed(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return segments and positions `[B, L]` of rows of documents.

    Documents stand side by side; each counts its positions from 0; the rest of a row is padding.

    Args:
        rows: lengths of each row's documents.
        length: L.
    """
    segments = np.zeros((len(rows), length), np.int32)
    positions = np.zeros_like(segments)
    for row, sizes in enumerate(rows):
        start = 0
        for number, size in enumerate(sizes, start=1):
            segments[row, start : start + size] = number
            positions[row, start : start + size] = np.arange(size)
            start += size
    return segments, positions
