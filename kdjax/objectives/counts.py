"""What losses are means over, counted: float32 scalars. B batch, L length, S slots."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdjax.objectives.base import Batch
from kdjax.objectives.reductions import precise, valid_pairs


def number(where: jax.Array) -> jax.Array:
    """How many are True."""
    return jnp.sum(where, dtype=jnp.int32).astype(jnp.float32)


def slots(batch: Batch) -> jax.Array:
    """The masked slots, by their weights."""
    return jnp.sum(precise(batch["label_weights"])).astype(jnp.float32)


def valid(batch: Batch) -> jax.Array:
    """The valid positions: also the rows of attention and of relations."""
    return number(batch["valid"])


def pairs(batch: Batch) -> jax.Array:
    """The pairs of valid positions of one segment."""
    return number(valid_pairs(batch))


def sequences(batch: Batch) -> jax.Array:
    """The sequences, whatever they hold: for means over all B, padding included."""
    return jnp.asarray(batch["valid"].shape[0], jnp.float32)
