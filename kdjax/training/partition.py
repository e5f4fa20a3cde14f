"""The parameters that an objective trains: they alone are differentiated and updated; all others
cost nothing.

The optimiser sees parameters as one flat mapping, dotted path -> array, so that a phase can select
the state of its own and merge it back. What a phase does not train keeps its moments as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.extend import core

Flat = dict[str, Any]


def flatten(tree: Any) -> Flat:
    """Return a nested mapping as one, dotted path -> leaf."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple[Any, ...]) -> str:
    """Return a leaf's dotted path."""
    return ".".join(str(key.key) for key in path)


def partition(params: Any, gradient_mask: Any) -> tuple[Flat, Flat]:
    """Split parameters into those that are trained and the frozen rest.

    Args:
        params: nested parameters.
        gradient_mask: a tree like them, True where a parameter is trained.
    """
    has_gradient = flatten(gradient_mask)
    trainable: Flat = {}
    frozen: Flat = {}
    for name, leaf in flatten(params).items():
        if has_gradient[name]:
            trainable[name] = leaf
        else:
            frozen[name] = leaf
    return trainable, frozen


def combine(trainable: Flat, frozen: Flat, like: Any) -> Any:
    """Undo `partition`; `like` is any tree of the parameters' structure."""
    leaves = {**trainable, **frozen}
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[name_of(path)], like)


def select_opt_state(
    optimizer: optax.GradientTransformation, opt_state: Any, trainable: Flat
) -> Any:
    """Return the part of an optimiser's state that belongs to some of its flat parameters.

    Args:
        optimizer: the optimiser that made the state.
        opt_state: its state over all flat parameters.
        trainable: the parameters to select, dotted path -> array.
    """
    # A leaf of the state has the same path, whichever other parameters the optimiser sees.
    leaves = dict(jax.tree_util.tree_leaves_with_path(opt_state))
    selected = jax.eval_shape(optimizer.init, trainable)
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[path], selected)


def merge_opt_state(opt_state: Any, new: Any) -> Any:
    """Return an optimiser's state with that of some parameters renewed."""
    renewed = dict(jax.tree_util.tree_leaves_with_path(new))
    return jax.tree_util.tree_map_with_path(renewed.get, opt_state)


def parameters_in_use(loss: Callable[..., Any], params: Any, *args: Any) -> Any:
    """Trace a loss and find the parameters it depends on: a tree like `params` of booleans.

    Read from the traced program: a parameter that no equation mentions gets no gradient. Arguments
    are shapes.
    """
    # The first inputs of the program are the parameters, in the order of their leaves.
    traced = jax.make_jaxpr(loss)(params, *args).jaxpr
    used = set()
    for equation in traced.eqns:
        used |= {var for var in equation.invars if isinstance(var, core.Var)}
    leaves, tree = jax.tree.flatten(params)
    inputs = traced.invars[: len(leaves)]
    return jax.tree.unflatten(tree, [var in used for var in inputs])
