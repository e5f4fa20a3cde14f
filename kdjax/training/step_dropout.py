"""The dropout key of a step."""

from __future__ import annotations

import jax

from kdjax.models.ops.dropout import DropoutKey, sequence_seeds


def step_dropout_key(
    seed: jax.Array, step: jax.Array, sequences: int, dropout_impl: str | None
) -> DropoutKey:
    """Draw the dropout key of a step: a pure function of (seed, step, sequence).

    Args:
        seed: seed of the run.
        step: steps done before this one.
        sequences: sequences of the batch.
        dropout_impl: JAX PRNG implementation of dropout, a name such as threefry2x32; None: no
            dropout, and no key.
    """
    if dropout_impl is None:
        return None
    dropout_key = jax.random.fold_in(jax.random.key(seed, impl=dropout_impl), step)
    return sequence_seeds(dropout_key, sequences)
