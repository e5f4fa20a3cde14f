"""What every step of training does, whatever it trains: a gradient, and an update by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from kdjax.models.ops.dropout import Key, sequence_seeds
from kdjax.parallel.layout import Layout
from kdjax.parallel.unsharded import UNSHARDED, Unsharded
from kdjax.training.optimizer import apply_update


class Updated(NamedTuple):
    """What an update came to.

    Attributes:
        value: what the differentiated function returned, before the update.
        grads: gradients of the parameters, before the optimiser.
        params: the new parameters.
        opt: the optimiser's new state.
    """

    value: Any
    grads: Any
    params: Any
    opt: Any


def update_by_gradient(
    grad_fn: Callable[[Any], tuple[Any, Any]],
    params: Any,
    opt: Any,
    optimizer: optax.GradientTransformation,
    learning_rate: jax.Array,
    layout: Layout | Unsharded = UNSHARDED,
) -> Updated:
    """Differentiate a loss, and update the parameters once; pure.

    Args:
        grad_fn: parameters to the loss and its gradients, from `jax.value_and_grad`.
        params: parameters that are trained.
        opt: the optimiser's state over them.
        optimizer: the optimiser, but for the learning rate.
        learning_rate: learning rate of the step.
        layout: layout of the parameters on the devices.
    """
    with layout.mesh_context():
        value, grads = grad_fn(params)
    grads = layout.constrain_as_stored(grads)
    params, opt = apply_update(optimizer, grads, opt, params, learning_rate)
    return Updated(value, grads, params, opt)


def step_dropout_seeds(
    seed: jax.Array, step: jax.Array, sequences: int, dropout_impl: str | None
) -> Key:
    """Draw a dropout seed for each sequence of a step: a pure function of (seed, step, sequence).

    Args:
        seed: seed of the run.
        step: steps done before this one.
        sequences: sequences of the batch.
        dropout_impl: JAX PRNG implementation of dropout, a name such as threefry2x32; None: no
            dropout, and no seeds.
    """
    if dropout_impl is None:
        return None
    dropout_key = jax.random.fold_in(jax.random.key(seed, impl=dropout_impl), step)
    return sequence_seeds(dropout_key, sequences)
