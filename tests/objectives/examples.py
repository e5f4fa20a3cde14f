"""Features and batches small enough to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.config import ModelConfig
from kdjax.objectives import FeatureRequest, Features, Term

SLOTS = 3
VOCABULARY = 11

LENGTH = 16
"""Of every batch, so that a term is compiled once; it has room for all documents of `packed` side
by side."""

STUDENT = ModelConfig(layers=2, width=8, heads=4, ffn=8, vocab_size=VOCABULARY)
TEACHER = ModelConfig(layers=4, width=8, heads=4, ffn=8, vocab_size=VOCABULARY)
WIDE = ModelConfig(layers=4, width=12, heads=3, ffn=8, vocab_size=VOCABULARY)


def padded() -> dict[str, np.ndarray]:
    """Make a batch of one document a sequence: a whole one, a shorter one, a single token."""
    return batch_of([[1] * LENGTH, [1] * 4, [1]])


def packed() -> dict[str, np.ndarray]:
    """Make a batch of several documents a sequence, one of them a single token, and some
    padding."""
    return batch_of([[1, 1, 2, 2, 2, 3], [1, 1, 1, 1, 1, 1], [1, 1, 2, 2]])


def batch_of(segments: list[list[int]], seed: int = 5) -> dict[str, np.ndarray]:
    """Make a batch with these segments, padded; one of the slots is unused, with a label that is no
    word."""
    rng = np.random.default_rng(seed)
    ids = np.array([row + [0] * (LENGTH - len(row)) for row in segments], np.int32)
    labels = rng.integers(0, VOCABULARY, (len(ids), SLOTS)).astype(np.int32)
    weights = np.ones((len(ids), SLOTS), np.float32)
    # One slot is empty, as where a row has fewer masks than slots.
    labels[0, -1] = -1
    weights[0, -1] = 0
    return {"valid": ids > 0, "segments": ids, "labels": labels, "label_weights": weights}


def features(
    config: ModelConfig, batch: dict[str, np.ndarray], seed: int, dtype: Any = np.float64
) -> Features:
    """Draw random features of every layer."""
    rng = np.random.default_rng(seed)
    b, length = batch["valid"].shape

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    layers = range(1, config.layers + 1)
    vectors = {}
    for kind in ("query", "key", "value"):
        vectors[kind] = {n: draw(b, config.heads, length, config.head_width) for n in layers}
    return Features(
        scores={n: draw(b, config.heads, length, length) for n in layers},
        hidden={n: draw(b, length, config.width) for n in (0, *layers)},
        logits=draw(b, SLOTS, config.vocab_size),
        token_logits=draw(b, length, config.vocab_size),
        **vectors,
    )


def params_of(
    term: Term, student: ModelConfig, teacher: ModelConfig, dtype: Any = np.float64
) -> dict[str, Any]:
    """Draw the term's parameters, random all over."""
    rng = np.random.default_rng(8)
    return {
        name: jnp.asarray(rng.normal(size=x.shape), dtype)
        for name, x in term.init(student, teacher, 0).items()
    }


def restricted(features: Features, request: FeatureRequest) -> Features:
    """Return what a forward pass asked with `request` hands out."""
    requested = {}
    for kind in ("scores", "query", "key", "value", "hidden"):
        by_layer = getattr(features, kind)
        requested[kind] = {n: by_layer[n] for n in getattr(request, kind)}
    return Features(
        **requested,
        logits=features.logits if request.logits else None,
        token_logits=features.token_logits if request.token_logits else None,
    )


@cache
def graded(
    term: Term,
) -> Callable[..., tuple[jax.Array, tuple[Features, Features, dict[str, jax.Array]]]]:
    """Compile the loss and its gradients to the student's features, the teacher's and the
    params."""
    # The functions run once or twice each: compiling them well would take longer than it saves.
    quickly = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(jax.value_and_grad(term, (0, 1, 3)), compiler_options=quickly)


def groups(batch: dict[str, np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """List (sequence, positions) of every document."""
    for b, ids in enumerate(batch["segments"]):
        for segment in np.unique(ids[ids > 0]):
            yield b, np.flatnonzero(ids == segment)


def softmax(x: np.ndarray) -> np.ndarray:
    """Compute the softmax over the last axis."""
    # The largest entry becomes 0, so that no exponential overflows.
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(target: np.ndarray, student: np.ndarray) -> float:
    """Compute KL(target‖student) of two distributions without zeros."""
    return float((target * (np.log(target) - np.log(student))).sum())


def used_slots(batch: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """List the sequence and number of each slot that is used."""
    return [(int(b), int(s)) for b, s in np.argwhere(batch["label_weights"] > 0)]


def blocks(model_features: Any, layer: int, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return scores of each document and head: what is inside a document, and nothing else."""
    scores = np.asarray(model_features.scores[layer])
    inside: list[np.ndarray] = []
    for b, at in groups(batch):
        inside += list(scores[b][:, at[:, None], at])
    return inside
