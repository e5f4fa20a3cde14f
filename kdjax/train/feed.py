"""Batches on their way into the step: placed on the devices, and counted over all processes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kdjax.parallel import hosts
from kdjax.parallel.layout import AXES, Layout
from kdjax.train.program import Program


class Stream(Protocol):
    """Batches in their order (`kdjax.data.loader.Batches`)."""

    @property
    def sequences(self) -> int:
        """How many sequences there are before they repeat."""

    def iterate(self, seen: int, rows: Any = ...) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """The batches that follow on `seen` sequences, each with how many were seen before it, without end."""


@dataclass(frozen=True)
class Votes:
    """What one process wants, before all know it.

    Attributes:
        stop: whether it was told to stop.
        save: the number of the checkpoint that is due by its clock, which of all processes the lead's decides; 0: none.
    """

    stop: bool
    save: int


@dataclass(frozen=True)
class Fed:
    """A batch on the devices, and what every process knows of it.

    Attributes:
        batch: placed.
        fresh: how many of its sequences are seen for the first time; they come first.
        tokens: padding not counted.
        unique: those of them in fresh sequences.
        masked: those of them that are masked.
        votes: of all processes, taken when the batch was placed.
    """

    batch: Mapping[str, jax.Array]
    fresh: int
    tokens: int
    unique: int
    masked: int
    votes: Votes


def feed(program: Program, stream: Stream, seen: int, votes: Callable[[], Votes]) -> Iterator[Fed]:
    """The batches of a phase as they go into its step.

    With several processes one is counted on the devices while they are busy with the step before, so that no step waits
    for the count: votes are then as old as that.

    Args:
        program: the phase's.
        stream: its batches.
        seen: sequences that were seen before.
        votes: asked once a batch.
    """
    size = program.shape.batch
    if not hosts.several():
        for before, batch in stream.iterate(seen):
            fresh = _fresh(stream, before, size)
            tokens, unique, masked = (int(n) for n in _count(batch["valid"], batch["label_weights"], fresh))
            yield Fed(program.place(batch), fresh, tokens, unique, masked, votes())
        return
    tally = _tally(program.layout)
    ahead: tuple[Mapping[str, jax.Array], int, jax.Array] | None = None
    for before, batch in stream.iterate(seen, program.layout.rows(size)):
        placed, fresh = program.place(batch), _fresh(stream, before, size)
        sums = tally(placed["valid"], placed["label_weights"], np.int32(fresh), _ballot(program.layout, votes()))
        hosts.in_turn(sums)
        ahead, now = (placed, fresh, sums), ahead
        if now is not None:
            tokens, unique, masked, stop, save = (int(n) for n in np.asarray(now[2]))
            yield Fed(now[0], now[1], tokens, unique, masked, Votes(stop > 0, save))


def _fresh(stream: Stream, before: int, size: int) -> int:
    return min(size, max(0, stream.sequences - before))  # sequences repeat only after all were seen


def _count(valid: Any, weights: Any, fresh: Any) -> tuple[Any, Any, Any]:
    """Tokens of a batch, those of its first `fresh` sequences, and those that are masked."""
    tokens = valid.sum(axis=1)
    return tokens.sum(), (tokens * (np.arange(len(tokens)) < fresh)).sum(), (weights > 0).sum()


def _ballot(layout: Layout, votes: Votes) -> jax.Array:
    """`[devices, 2]`: in the row of a process's first device its vote to stop; in the lead's also what to save."""
    mine = np.array([[votes.stop, votes.save if hosts.lead() else 0]], np.int32)
    sharding = NamedSharding(layout.mesh, PartitionSpec(AXES))
    here = [device for device in layout.mesh.devices.flat if device in sharding.addressable_devices]
    rows = [jax.device_put(mine if n == 0 else np.zeros_like(mine), device) for n, device in enumerate(here)]
    return jax.make_array_from_single_device_arrays((layout.devices, 2), sharding, rows)


@functools.cache
def _tally(layout: Layout) -> Callable[..., jax.Array]:
    def sums(valid: jax.Array, weights: jax.Array, fresh: jax.Array, ballot: jax.Array) -> jax.Array:
        return jnp.stack([*_count(valid, weights, fresh), *ballot.sum(axis=0)]).astype(jnp.int32)

    return jax.jit(sums, out_shardings=layout.everywhere)
