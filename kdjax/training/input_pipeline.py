"""Batches on their way into the step, counted over all processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.parallel import hosts
from kdjax.parallel.layout import AXES, Layout
from kdjax.training.program import Program


class Stream(Protocol):
    """Batches in their order (`kdjax.data.loader.Batches`)."""

    @property
    def sequences(self) -> int:
        """How many sequences there are before they repeat."""

    def iterate(self, seen: int, rows: Any = ...) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """The batches that follow on `seen` sequences, each with how many were seen before it,
        without end."""


@dataclass(frozen=True)
class HostSignals:
    """What one process wants, before all know it.

    Attributes:
        stop: whether it was told to stop.
        save: the number of the checkpoint that is due by its clock, which of all processes the
            lead's decides; 0: none.
    """

    stop: bool
    save: int


@dataclass(frozen=True)
class BatchCounts:
    """What a run reads in a step, over all processes.

    Attributes:
        fresh: how many of the batch's sequences are seen for the first time; they come first.
        tokens: padding not counted.
        unique: those of them in fresh sequences.
        masked: those of them that are masked.
    """

    fresh: int
    tokens: int
    unique: int
    masked: int


@dataclass(frozen=True)
class StepInput:
    """What goes into a step, and what every process knows of it.

    Attributes:
        batch: of all runs that take the step, as `Program.step` takes it.
        reads: of each run.
        votes: of all processes, taken when the batch was read.
    """

    batch: Mapping[str, Any]
    reads: Sequence[BatchCounts]
    votes: HostSignals


def feed(
    program: Program, streams: Sequence[Stream], seen: int, votes: Callable[[], HostSignals]
) -> Iterator[StepInput]:
    """The batches of a phase as they go into its step.

    With several processes they are counted on the devices while these are busy with the step
    before, so that no step
    waits for the count: votes are then as old as that.

    Args:
        program: the phase's.
        streams: the batches of each run that takes the step.
        seen: sequences that each saw before.
        votes: asked once a step.
    """
    size = program.shape.batch_size
    if not hosts.is_multiprocess():
        for each in zip(*(stream.iterate(seen) for stream in streams), strict=True):
            reads = [
                _read(batch["valid"], batch["label_weights"], _fresh(stream, before, size))
                for stream, (before, batch) in zip(streams, each, strict=True)
            ]
            yield StepInput(program.joined([batch for _, batch in each]), reads, votes())
        return
    tally = _tally(program.layout)
    ahead: tuple[Mapping[str, jax.Array], list[int], jax.Array] | None = None
    rows = program.layout.rows(size)
    for each in zip(*(stream.iterate(seen, rows) for stream in streams), strict=True):
        placed = program.place(program.joined([batch for _, batch in each]))
        fresh = [
            _fresh(stream, before, size) for stream, (before, _) in zip(streams, each, strict=True)
        ]
        counts = tally(
            placed["valid"],
            placed["label_weights"],
            np.array(fresh, np.int32),
            _ballot(program.layout, votes()),
        )
        hosts.serialize_on_cpu(counts)
        ahead, now = (placed, fresh, counts), ahead
        if now is not None:
            *sums, stop, save = (int(n) for n in np.asarray(now[2]))
            reads = [BatchCounts(first, *sums[3 * n : 3 * n + 3]) for n, first in enumerate(now[1])]
            yield StepInput(now[0], reads, HostSignals(stop > 0, save))


def _fresh(stream: Stream, before: int, size: int) -> int:
    return min(size, max(0, stream.sequences - before))  # sequences repeat only after all were seen


def _read(valid: np.ndarray, weights: np.ndarray, fresh: int) -> BatchCounts:
    counts = (np.count_nonzero(x) for x in (valid, valid[:fresh], weights > 0))
    return BatchCounts(fresh, *(int(n) for n in counts))


def _count(
    valid: jax.Array, weights: jax.Array, fresh: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `_read` counts, on the devices."""
    tokens = valid.sum(axis=1)
    return tokens.sum(), (tokens * (jnp.arange(len(tokens)) < fresh)).sum(), (weights > 0).sum()


def _ballot(layout: Layout, votes: HostSignals) -> jax.Array:
    """`[devices, 2]`: in the row of a process's first device its vote to stop; in the lead's also
    what to save."""
    mine = np.array([[votes.stop, votes.save if hosts.is_main_process() else 0]], np.int32)
    sharding = NamedSharding(layout.mesh, PartitionSpec(AXES))
    here = [device for device in layout.mesh.devices.flat if device in sharding.addressable_devices]
    rows = [
        jax.device_put(mine if n == 0 else np.zeros_like(mine), device)
        for n, device in enumerate(here)
    ]
    return jax.make_array_from_single_device_arrays((layout.devices, 2), sharding, rows)


@functools.cache
def _tally(layout: Layout) -> Callable[..., jax.Array]:
    """The counts of each run, one run after another, and the votes: all of them in one array."""

    def sums(
        valid: jax.Array, weights: jax.Array, fresh: jax.Array, ballot: jax.Array
    ) -> jax.Array:
        # [B, L] of one run, [B, runs, L] of more
        each = [x.reshape(len(x), len(fresh), -1) for x in (valid, weights)]
        counts = jnp.stack(jax.vmap(_count, in_axes=(1, 1, 0))(each[0], each[1], fresh), axis=1)
        return jnp.concatenate([counts.ravel(), ballot.sum(axis=0)]).astype(jnp.int32)

    return jax.jit(sums, out_shardings=layout.replicated)
