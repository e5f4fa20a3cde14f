"""What every step of training does, whatever it trains: a gradient, and an update by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import jax
import optax

from kdjax.models.ops.dropout import DropoutKey, sequence_seeds
from kdjax.parallel.layout import Layout
from kdjax.parallel.unsharded import UNSHARDED, Unsharded
from kdjax.training.optimizer import apply_update

StateClass = TypeVar("StateClass")

STORED_NAMES = {"opt_state": "opt"}
"""Fields of a state that saved states have under another name -> that name."""


def register_state(state_class: type[StateClass]) -> type[StateClass]:
    """Register a dataclass of arrays as a pytree whose paths have the names of saved states.

    Checkpoints and their checksums go by these paths (`STORED_NAMES`), so a field may be renamed
    and what was saved before is still read.

    Args:
        state_class: a dataclass, all of whose fields are arrays or trees of them.
    """
    names = [field.name for field in fields(state_class)]  # type: ignore[arg-type]
    keys = [jax.tree_util.GetAttrKey(STORED_NAMES.get(name, name)) for name in names]

    def flatten_with_keys(state: StateClass) -> tuple[Any, None]:
        return [(key, getattr(state, name)) for key, name in zip(keys, names, strict=True)], None

    def unflatten(_: None, children: Any) -> StateClass:
        return state_class(*children)

    jax.tree_util.register_pytree_with_keys(state_class, flatten_with_keys, unflatten)
    return state_class


class Updated(NamedTuple):
    """What an update came to.

    Attributes:
        value: what the differentiated function returned, before the update.
        grads: gradients of the parameters, before the optimiser.
        params: the new parameters.
        opt_state: the optimiser's new state.
    """

    value: Any
    grads: Any
    params: Any
    opt_state: Any


def update_by_gradient(
    grad_fn: Callable[[Any], tuple[Any, Any]],
    params: Any,
    opt_state: Any,
    optimizer: optax.GradientTransformation,
    learning_rate: jax.Array,
    layout: Layout | Unsharded = UNSHARDED,
) -> Updated:
    """Differentiate a loss, and update the parameters once; pure.

    Args:
        grad_fn: parameters to the loss and its gradients, from `jax.value_and_grad`.
        params: parameters that are trained.
        opt_state: the optimiser's state over them.
        optimizer: the optimiser, but for the learning rate.
        learning_rate: learning rate of the step.
        layout: layout of the parameters on the devices.
    """
    with layout.mesh_context():
        value, grads = grad_fn(params)
    grads = layout.constrain_as_stored(grads)
    params, opt_state = apply_update(optimizer, grads, opt_state, params, learning_rate)
    return Updated(value, grads, params, opt_state)


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
