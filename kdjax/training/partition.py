"""The parameters that an objective trains: they alone are differentiated and updated; all others
cost nothing.

The optimiser sees parameters as one flat mapping, dotted path -> array, so that a phase can select
the state of its own and merge it back. What a phase does not train keeps its moments as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
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


def select_optimizer_state(opt: Any, names: Flat) -> Any:
    """Return the part of an optimiser's state that belongs to some of its flat parameters.

    A mapping in the state may be over some of the parameters alone, where an optimiser treats kinds
    of them differently.
    """

    def select(node: Any) -> Any:
        if not _is_flat(node):
            return node
        return {name: node[name] for name in names if name in node}

    return jax.tree.map(select, opt, is_leaf=_is_flat)


def merge_optimizer_state(opt: Any, new: Any) -> Any:
    """Return an optimiser's state with that of some parameters renewed."""

    def merge(old_node: Any, new_node: Any) -> Any:
        if not _is_flat(old_node):
            return new_node
        return {**old_node, **new_node}

    return jax.tree.map(merge, opt, new, is_leaf=_is_flat)


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


def _is_flat(node: Any) -> bool:
    """Return whether a node of an optimiser's state has an entry for each of some parameters.

    Optax's states are named tuples, whose only mappings are those that an optimiser made like the
    parameters it was given, and these are flat. A state kept by parameter path instead would have
    to know every optimiser's fields, and would change what stored checkpoints look like.
    """
    return isinstance(node, dict)
