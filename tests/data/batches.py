"""What tests read out of batches."""

from __future__ import annotations

from collections.abc import Iterable

from kdjax.data.corpus import HostBatch
from kdjax.data.masking import MaskSettings

MASKS = MaskSettings(mlm_probability=0.15, max_predictions=4)
"""Masks of the shared corpus's sequences of 24 tokens."""


def originals(batch: HostBatch) -> list[bytes]:
    """Return each row's tokens with the masked ones put back, without rows that are padding."""
    tokens = batch["tokens"].copy()
    for row, slots in enumerate(batch["slots"]):
        masked = batch["label_weights"][row] > 0
        tokens[row, slots[masked]] = batch["labels"][row, masked]
    return [row.tobytes() for row in tokens[batch["valid"].any(axis=1)]]


def all_originals(batches: Iterable[HostBatch]) -> list[bytes]:
    """Return the rows of `originals` of several batches, one after another."""
    rows: list[bytes] = []
    for batch in batches:
        rows += originals(batch)
    return rows
