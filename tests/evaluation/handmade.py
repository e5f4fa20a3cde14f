"""Tasks made by hand, small enough to see why a model can or cannot do them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from kdjax.data.tasks.labelled import Split, Task

from kdjax.config import ModelConfig

MODEL = ModelConfig(
    layers=1,
    width=32,
    heads=2,
    ffn=64,
    vocab_size=20,
    max_positions=80,
    dropout=0.0,
    attention_dropout=0.0,
)


def inputs(
    rows: int, rng: np.random.Generator, length: int = 8, shortest: int = 4
) -> dict[str, np.ndarray]:
    """Draw rows of tokens from 3 to 19 behind a first token 1, of random lengths, padded with 0."""
    ends = rng.integers(shortest, length + 1, rows)
    valid = np.arange(length) < ends[:, None]
    tokens = np.where(valid, rng.integers(3, 20, (rows, length)), 0)
    tokens[:, 0] = 1
    return {
        "tokens": tokens.astype(np.int32),
        "segments": valid.astype(np.int32),
        "positions": (np.arange(length) * valid).astype(np.int32),
        "valid": valid,
    }


def topics(rows: int, rng: np.random.Generator) -> Split:
    """Draw rows of two classes: the second token is 3 or 4, which stand nowhere else."""
    batch = inputs(rows, rng)
    labels = rng.integers(0, 2, rows).astype(np.int32)
    # The tokens that tell the classes apart stand at one place alone.
    batch["tokens"] = np.where(np.isin(batch["tokens"], (3, 4)), 5, batch["tokens"]).astype(
        np.int32
    )
    batch["tokens"][:, 1] = 3 + labels
    return Split(batch, labels)


def grades(rows: int, rng: np.random.Generator) -> Split:
    """Draw rows with numbers: 100 plus 40 times the share of a row's tokens that are 3."""
    batch = inputs(rows, rng)
    # Half of the tokens, row by row more or fewer of them, become 3.
    batch["tokens"] = np.where(
        batch["valid"] & (rng.random(batch["tokens"].shape) < 0.5),
        3,
        batch["tokens"],
    )
    batch["tokens"][:, 0] = 1
    share = (batch["tokens"] == 3).sum(1) / batch["valid"].sum(1)
    return Split(
        {**batch, "tokens": batch["tokens"].astype(np.int32)}, (100 + 40 * share).astype(np.float32)
    )


def task(
    make: Callable[[int, np.random.Generator], Split] = topics,
    train: int = 200,
    dev: int = 60,
    test: int = 100,
    seed: int = 0,
) -> Task:
    """Make a task of `topics` or `grades`."""
    rng = np.random.default_rng(seed)
    splits = [make(rows, rng) for rows in (train, dev, test)]
    classes = ("three", "four") if make is topics else ()
    return Task("handmade", classes, *splits)
