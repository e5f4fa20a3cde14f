"""Tasks made by hand, small enough to see why a model can or cannot do them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from kdjax.config import ModelConfig
from kdjax.data.tasks.task import Split, Task
from kdjax.parallel.layout import Layout

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
Rows = list[np.ndarray]


def ragged(rows: Sequence[np.ndarray], labels: np.ndarray | None = None) -> Split:
    """Put rows of token ids after one another."""
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Split(np.concatenate(rows).astype(np.int32), offsets, None, labels)


def inputs(rows: int, rng: np.random.Generator, length: int = 8, shortest: int = 4) -> Rows:
    """Draw rows of tokens from 3 to 19 behind a first token 1, of random lengths."""
    ends = rng.integers(shortest, length + 1, rows)
    return [np.concatenate([[1], rng.integers(3, 20, end - 1)]) for end in ends]


def topics(rows: int, rng: np.random.Generator, length: int = 8) -> Split:
    """Draw rows of two classes: the second token is 3 or 4, which stand nowhere else."""
    labels = rng.integers(0, 2, rows).astype(np.int32)
    texts = []
    for row, label in zip(inputs(rows, rng, length), labels, strict=True):
        # The tokens that tell the classes apart stand at one place alone.
        tokens = np.where(np.isin(row, (3, 4)), 5, row)
        tokens[1] = 3 + label
        texts.append(tokens)
    return ragged(texts, labels)


def grades(rows: int, rng: np.random.Generator) -> Split:
    """Draw rows with numbers: 100 plus 40 times the share of a row's tokens that are 3."""
    texts = []
    for row in inputs(rows, rng):
        # Half of the tokens, row by row more or fewer of them, become 3.
        tokens = np.where(rng.random(len(row)) < 0.5, 3, row)
        tokens[0] = 1
        texts.append(tokens)
    shares = np.array([np.mean(tokens == 3) for tokens in texts])
    return ragged(texts, (100 + 40 * shares).astype(np.float32))


def task(
    make: Callable[[int, np.random.Generator], Split] = topics,
    train: int = 200,
    selection: int = 60,
    reported: int = 100,
    seed: int = 0,
) -> Task:
    """Make a task of `topics` or `grades`."""
    rng = np.random.default_rng(seed)
    splits = [make(rows, rng) for rows in (train, selection, reported)]
    numbers = splits[0].labels.dtype == np.float32
    classes = () if numbers else ("three", "four")
    metrics = ("pearson",) if numbers else ("accuracy",)
    return Task("handmade", classes, metrics, splits[0], splits[1], {"handmade": splits[2]})


def alone() -> Layout:
    """Return a layout of one device."""
    return Layout.from_config(devices=jax.devices()[:1])
