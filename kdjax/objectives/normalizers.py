"""What losses are means over, counted: float32 scalars."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdjax.models.features import Batch
from kdjax.models.ops import at_least_float32
from kdjax.objectives.reductions import valid_pairs


def count_true(where: jax.Array) -> jax.Array:
    """Count how many are True."""
    return jnp.sum(where, dtype=jnp.int32).astype(jnp.float32)


def masked_slots(batch: Batch) -> jax.Array:
    """Count the masked slots, by their weights."""
    return jnp.sum(at_least_float32(batch["label_weights"])).astype(jnp.float32)


def valid_positions(batch: Batch) -> jax.Array:
    """Count the valid positions, which are also the rows of attention and relations."""
    return count_true(batch["valid"])


def pairs(batch: Batch) -> jax.Array:
    """Count the pairs of valid positions of one segment."""
    return count_true(valid_pairs(batch))


def sequences(batch: Batch) -> jax.Array:
    """Count the sequences, for means over all of a batch, padding included."""
    return jnp.asarray(batch["valid"].shape[0], jnp.float32)
