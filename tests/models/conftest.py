import os
from dataclasses import replace

import numpy as np
import pytest

from kdjax.config import ModelConfig

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
def config():
    """A small config; `config(norm="pre")` differs in what it is told."""
    return lambda **changes: replace(CONFIG, **changes)


@pytest.fixture
def batch_of():
    """Builds a batch from rows, each a list of packed documents' lengths; the rest of a row is
    padding."""

    def build(rows, *, length=16, slots=4, seed=0, vocab=57, types=False):
        rng = np.random.default_rng(seed)
        segments, positions = np.zeros((2, len(rows), length), np.int32)
        for r, documents in enumerate(rows):
            at = 0
            for n, size in enumerate(documents, start=1):
                segments[r, at : at + size] = n
                positions[r, at : at + size] = np.arange(size)
                at += size
        batch = {
            "tokens": np.where(segments > 0, rng.integers(1, vocab, segments.shape), 0).astype(
                np.int32
            ),
            "segments": segments,
            "positions": positions,
            "valid": segments > 0,
            "slots": np.stack(
                [np.sort(rng.permutation(sum(documents))[:slots]) for documents in rows]
            ).astype(np.int32),
        }
        if types:
            batch["types"] = (segments % 2).astype(np.int32)
        return batch

    return build


@pytest.fixture
def scrambled():
    """Moves every parameter of a tree away from its start, so that biases and LayerNorms count."""

    def move(params, seed=0, size=0.15):
        import jax

        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: x + rng.normal(0, size, x.shape).astype(np.float32), params)

    return move
