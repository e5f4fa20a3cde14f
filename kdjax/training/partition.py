"""The parameters that an objective moves: they alone are differentiated and updated; all others
cost nothing.

The optimiser sees parameters as one flat mapping, dotted path -> array, so that a phase can take
its own out of it and put them back. What a phase does not move keeps its moments as they are.
"""

from __future__ import annotations

from typing import Any

import jax

Flat = dict[str, Any]


def flat(tree: Any) -> Flat:
    """A nested mapping as one, dotted path -> leaf."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple[Any, ...]) -> str:
    """A leaf's dotted path."""
    return ".".join(str(key.key) for key in path)


def partition(params: Any, trained: Any) -> tuple[Flat, Flat]:
    """Parameters in two: those that are trained, and the rest."""
    moves = flat(trained)
    leaves = flat(params)
    trainable = {name: leaf for name, leaf in leaves.items() if moves[name]}
    return trainable, {name: leaf for name, leaf in leaves.items() if not moves[name]}


def combine(trainable: Flat, frozen: Flat, like: Any) -> Any:
    """The inverse of `partition`; `like` is any tree of the parameters' structure."""
    both = {**trainable, **frozen}
    return jax.tree_util.tree_map_with_path(lambda path, _: both[name_of(path)], like)


def select_optimizer_state(opt: Any, names: Flat) -> Any:
    """Of an optimiser's state over flat parameters, that of some of them."""
    return jax.tree.map(
        lambda node: {name: node[name] for name in names} if _is_flat(node) else node,
        opt,
        is_leaf=_is_flat,
    )


def merge_optimizer_state(opt: Any, new: Any) -> Any:
    """An optimiser's state with that of some parameters renewed."""
    return jax.tree.map(
        lambda old, node: {**old, **node} if _is_flat(old) else node, opt, new, is_leaf=_is_flat
    )


def _is_flat(node: Any) -> bool:
    return isinstance(node, dict)
