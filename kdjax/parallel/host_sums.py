"""What all processes learn about a step: what its batch holds, summed over hosts, and the signals
of each host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.parallel import hosts
from kdjax.parallel.layout import AXES, Layout


@dataclass(frozen=True)
class HostSignals:
    """What a process asks for, or what all ask for once they have agreed.

    Attributes:
        stop: whether a process was told to stop.
        save: number of the checkpoint that is due by the clock of the main process; 0: none.
    """

    stop: bool
    save: int


@dataclass(frozen=True)
class BatchCounts:
    """What a run reads in a step, over all processes.

    Attributes:
        fresh_sequences: sequences that are seen for the first time; they come first in the batch.
        tokens: tokens, padding not counted. This and the two below are arrays, an element a lane,
            where the batches of several lanes are stacked.
        fresh_tokens: tokens of fresh sequences.
        masked_tokens: tokens that are masked.
    """

    fresh_sequences: int
    tokens: Any
    fresh_tokens: Any
    masked_tokens: Any


def count_on_host(
    valid: np.ndarray, label_weights: np.ndarray, fresh_sequences: int
) -> BatchCounts:
    """Count a batch that this process reads alone, or those of several lanes.

    Args:
        valid: which tokens are no padding, bool `[B, L]`; of several lanes, whose batches are
            stacked along axis 1, `[B, lanes, L]`.
        label_weights: weight of each masked slot, 0 where a slot is not used, `[B, S]` or
            `[B, lanes, S]`.
        fresh_sequences: sequences that are seen for the first time; they come first.
    """
    return BatchCounts(
        fresh_sequences,
        tokens=np.count_nonzero(valid, axis=(0, -1)),
        fresh_tokens=np.count_nonzero(valid[:fresh_sequences], axis=(0, -1)),
        masked_tokens=np.count_nonzero(label_weights > 0, axis=(0, -1)),
    )


@functools.cache
def make_sum_over_hosts(layout: Layout) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Build a compiled function that sums counts and signals over all hosts.

    It takes the arguments of `count_on_host`, the arrays placed on the devices, and the array of
    `place_signals`. It returns two int32 arrays on every host: the numbers of tokens, of fresh and
    of masked ones, `[3]`, or `[3, lanes]` of several lanes; and the signals, `[2]`.

    Args:
        layout: how arrays lie on the devices.
    """

    def sum_over_hosts(
        valid: jax.Array, label_weights: jax.Array, fresh_sequences: Any, signals: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # By sequence, since those that are fresh come first in a batch
        tokens = valid.sum(axis=-1)
        is_fresh = jnp.arange(len(tokens)) < fresh_sequences
        fresh_tokens = (tokens.T * is_fresh).sum(axis=-1)
        masked_tokens = (label_weights > 0).sum(axis=(0, -1))
        counts = jnp.stack([tokens.sum(axis=0), fresh_tokens, masked_tokens])
        return counts.astype(jnp.int32), signals.sum(axis=0)

    return jax.jit(sum_over_hosts, out_shardings=layout.replicated)


def place_signals(layout: Layout, signals: HostSignals) -> jax.Array:
    """Put this process's signals on its devices: one row of `[devices, 2]` int32, the others are 0.

    The row holds whether to stop and, from the main process alone, which checkpoint to save.

    Args:
        layout: how arrays lie on the devices.
        signals: what this process asks for.
    """
    row = np.array([[signals.stop, signals.save]], np.int32)
    if not hosts.is_main_process():
        row[0, 1] = 0
    sharding = NamedSharding(layout.mesh, PartitionSpec(AXES))
    # The first device has the row, so that a sum over all counts each process once.
    rows = []
    for device in layout.mesh.devices.flat:
        if device in sharding.addressable_devices:
            rows.append(jax.device_put(row, device))
            row = np.zeros_like(row)
    return jax.make_array_from_single_device_arrays((layout.device_count, 2), sharding, rows)
