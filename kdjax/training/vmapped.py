"""Seeds of an arm as one program: the step vmapped over their states and their batches.

States lie along a new first axis. Batches lie along a new second one, since the first is that which
devices split.
Teacher and moment are the same for all of them: the one is not copied, the other not repeated.
Nothing of one seed reaches another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.parallel.layout import Layout
from kdjax.training.step import State, Step, with_group_norms


def side_by_side(step: Step) -> Step:
    """The step of several seeds: states along their first axis, batches along their second, metrics
    `[seeds]`."""
    return jax.vmap(step, in_axes=(0, None, 1, None))


def compile_seeds(step: Step, layout: Layout, state: State, teacher: Any) -> Any:
    """As `kdjax.training.step.compile_step`, of several seeds (`side_by_side`); `state` is that of
    one."""
    kept = beside(layout.param_sharding(state))
    return jax.jit(
        side_by_side(with_group_norms(step)),
        in_shardings=(
            kept,
            layout.teacher_sharding(teacher),
            layout.batch_sharding,
            layout.replicated,
        ),
        out_shardings=(kept, layout.replicated),
        donate_argnums=0,
    )


def stacked(trees: Sequence[Any], axis: int = 0) -> Any:
    """Trees of arrays as one, along a new axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *trees)


def nth(tree: Any, n: Any) -> Any:
    """One of the trees that were stacked."""
    return jax.tree.map(lambda leaf: leaf[n], tree)


def beside(shardings: Any) -> Any:
    """Where stacked arrays lie, from where each alone does: the new axis is split over no
    device."""
    return jax.tree.map(
        lambda one: NamedSharding(one.mesh, PartitionSpec(None, *one.spec)), shardings
    )
