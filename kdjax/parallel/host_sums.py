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
        fresh: sequences of the batch that are seen for the first time; they come first.
        tokens: tokens, padding not counted; an array where batches are stacked along axis 1.
        unique: tokens of fresh sequences.
        masked: tokens that are masked.
    """

    fresh: int
    tokens: Any
    unique: Any
    masked: Any


def count_on_host(valid: np.ndarray, label_weights: np.ndarray, fresh: int) -> BatchCounts:
    """Count a batch that this process reads alone.

    Args:
        valid: `[B, L]`, or `[B, N, L]` of N batches.
        label_weights: `[B, S]`, or `[B, N, S]`.
        fresh: sequences that are seen for the first time.
    """
    return BatchCounts(
        fresh,
        tokens=np.count_nonzero(valid, axis=(0, -1)),
        unique=np.count_nonzero(valid[:fresh], axis=(0, -1)),
        masked=np.count_nonzero(label_weights > 0, axis=(0, -1)),
    )


@functools.cache
def count_on_devices(layout: Layout) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Build a compiled function that sums counts and signals over all hosts.

    It takes the arrays of `count_on_host`, placed, and those of `place_signals`. It returns tokens,
    unique and masked tokens `[3]` or `[3, N]`, and the signals `[2]`, on every host.
    """

    def count(
        valid: jax.Array, label_weights: jax.Array, fresh: Any, signals: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # By sequence, since those that are fresh come first in a batch
        tokens = valid.sum(axis=-1)
        is_fresh = jnp.arange(len(tokens)) < fresh
        unique = (tokens.T * is_fresh).sum(axis=-1)
        masked = (label_weights > 0).sum(axis=(0, -1))
        counts = jnp.stack([tokens.sum(axis=0), unique, masked])
        return counts.astype(jnp.int32), signals.sum(axis=0)

    return jax.jit(count, out_shardings=layout.replicated)


def place_signals(layout: Layout, signals: HostSignals) -> jax.Array:
    """Put this process's signals on its devices: one row of `[devices, 2]`, the others are 0.

    The row holds whether to stop and, from the main process alone, which checkpoint to save.
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
