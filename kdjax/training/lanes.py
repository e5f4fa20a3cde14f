"""Lanes: the step of one run vmapped over the states and batches of several.

States are stacked along a new first axis. Batches are stacked along a new second one, since devices
split the first. Teacher and schedule inputs are the same for all lanes: the one is not copied, the
other not repeated. Nothing of one lane reaches another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.training.step import Step
from kdjax.training.stopwatch import Stopwatch

BATCH_AXIS = 1
"""Axis of a batch's arrays along which lanes lie."""


@dataclass(frozen=True)
class Lane:
    """Place of a run among those that are trained at once.

    Attributes:
        number: number of the lane.
        stopwatches: stopwatches of all runs that train at once, this one's too; time that all spend
            together is shared evenly.
        has_profile: whether the profile, which is of all runs, lies in this run's directory.
    """

    number: int
    stopwatches: Sequence[Stopwatch]
    has_profile: bool


def vmap_step(step: Step) -> Step:
    """Return the step of several lanes, whose metrics are `[lanes]`."""
    return jax.vmap(step, in_axes=(0, None, BATCH_AXIS, None))


def stack(trees: Sequence[Any], axis: int = 0) -> Any:
    """Stack trees of arrays into one, along a new axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *trees)


def unstack(tree: Any, lane: Any) -> Any:
    """Return one of the trees that were stacked along the first axis."""
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def stacked_sharding(shardings: Any) -> Any:
    """Return the sharding of stacked arrays, from that of each alone: the new axis is not split."""

    def stacked(sharding: NamedSharding) -> NamedSharding:
        return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))

    return jax.tree.map(stacked, shardings)
