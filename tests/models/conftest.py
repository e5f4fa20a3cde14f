"""Small models and batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kdjax.config import ModelConfig
from tests.models.fixtures import BatchOf, ConfigWith, Scramble, packed

os.environ["HF_HUB_OFFLINE"] = "1"

CONFIG = ModelConfig(
    layers=3,
    width=24,
    heads=3,
    ffn=40,
    vocab_size=57,
    max_positions=20,
    dropout=0.3,
    attention_dropout=0.2,
)


@pytest.fixture
def config_with() -> ConfigWith:
    """A small config; `config_with(norm="pre")` differs in a setting."""
    return lambda **changes: replace(CONFIG, **changes)


@pytest.fixture
def batch_of() -> BatchOf:
    """Build a batch from rows, each a list of packed documents' lengths; the rest of a row is
    padding."""

    def build(
        rows: Sequence[Sequence[int]],
        *,
        length: int = 16,
        slots: int = 4,
        types: bool = False,
    ) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        segments, positions = packed(rows, length)
        # Padding is token 0, and no word is.
        tokens = np.where(segments > 0, rng.integers(1, CONFIG.vocab_size, segments.shape), 0)
        # Slots are drawn from the tokens, in order, as masking draws them.
        chosen = [np.sort(rng.permutation(sum(documents))[:slots]) for documents in rows]
        batch = {
            "tokens": tokens.astype(np.int32),
            "segments": segments,
            "positions": positions,
            "valid": segments > 0,
            "slots": np.stack(chosen).astype(np.int32),
        }
        if types:
            batch["types"] = (segments % 2).astype(np.int32)
        return batch

    return build


@pytest.fixture
def scrambled() -> Scramble:
    """Move every parameter of a tree away from its start, so that biases and LayerNorms count."""

    def move(params: Any) -> Any:
        import jax

        rng = np.random.default_rng(0)
        return jax.tree.map(lambda x: x + rng.normal(0, 0.15, x.shape).astype(np.float32), params)

    return move
