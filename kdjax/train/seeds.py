"""Seeds of an arm as one program: their states along a first axis, and the step vmapped over it.

Teacher and moment are the same for all of them: the one is not copied, the other not repeated. Nothing of one seed
reaches another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.parallel.layout import Layout
from kdjax.train.step import Batch, Moment, State, Step, with_group_norms


def side_by_side(step: Step, seeds: int) -> Any:
    """The step of several seeds: `(states, teacher_params, batches, moment) -> (states, metrics)`.

    Args:
        step: of one seed.
        seeds: how many.

    Returns:
        A pure function of states along a first axis, and of a tuple of batches, one of each seed. Its metrics are such
        a tuple, too.
    """
    each = jax.vmap(step, in_axes=(0, None, 0, None))

    def together(
        states: State, teacher_params: Any, batches: tuple[Batch, ...], moment: Moment
    ) -> tuple[State, tuple[dict[str, Any], ...]]:
        states, metrics = each(states, teacher_params, stacked(batches), moment)
        return states, tuple(nth(metrics, n) for n in range(seeds))

    return together


def compile_seeds(step: Step, layout: Layout, state: State, teacher: Any, seeds: int) -> Any:
    """As `kdjax.train.step.compile_step`, of several seeds (`side_by_side`); `state` is that of one."""
    kept = beside(layout.stored(state))
    return jax.jit(
        side_by_side(with_group_norms(step), seeds),
        in_shardings=(kept, layout.stored(teacher), layout.by_batch, layout.everywhere),
        out_shardings=(kept, layout.everywhere),
        donate_argnums=0,
    )


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of arrays as one, along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def nth(tree: Any, n: Any) -> Any:
    """One of the trees that were stacked."""
    return jax.tree.map(lambda leaf: leaf[n], tree)


def beside(shardings: Any) -> Any:
    """Where stacked arrays lie, from where each alone does: the new axis is split over no device."""
    return jax.tree.map(lambda one: NamedSharding(one.mesh, PartitionSpec(None, *one.spec)), shardings)
