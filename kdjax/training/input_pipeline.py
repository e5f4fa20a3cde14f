"""The input pipeline: batches on their way into the step, counted over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from kdjax.parallel import hosts
from kdjax.parallel.host_sums import (
    BatchCounts,
    HostSignals,
    count_on_host,
    make_sum_over_hosts,
    place_signals,
)
from kdjax.training.program import Program


class Stream(Protocol):
    """Batches in their order (`kdjax.data.loader.Batches`)."""

    @property
    def sequences(self) -> int:
        """Return the number of sequences before they repeat."""

    def iterate(self, seen: int, rows: Any = ...) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """Yield the batches that follow on `seen` sequences, without end, with the number seen."""


@dataclass(frozen=True)
class StepInput:
    """What goes into a step, and what every process knows about it.

    Attributes:
        batch: arrays as `Program.step` takes them.
        counts: numbers of tokens and sequences in the batch, over all processes.
        signals: requests of any process, as of when the batch was read.
    """

    batch: Mapping[str, Any]
    counts: BatchCounts
    signals: HostSignals


def step_inputs(
    program: Program, stream: Stream, sequences_seen: int, signals: Callable[[], HostSignals]
) -> Iterator[StepInput]:
    """Return the inputs of a phase's steps, in their order.

    Args:
        program: compiled step, which places batches on its devices.
        stream: batches of the phase, from the start of the run.
        sequences_seen: sequences that the run has seen before.
        signals: function called once a step, which gives this process's requests.
    """
    if hosts.is_multiprocess():
        return _counted_on_devices(program, stream, sequences_seen, signals)
    return _counted_on_host(program, stream, sequences_seen, signals)


def _counted_on_host(
    program: Program, stream: Stream, sequences_seen: int, signals: Callable[[], HostSignals]
) -> Iterator[StepInput]:
    """Yield the inputs of the only process; batches stay on the host, and the step places them."""
    for seen_before, arrays in stream.iterate(sequences_seen):
        batch = {name: arrays[name] for name in program.batch_fields}
        fresh = _fresh_sequences(program, stream, seen_before)
        counts = count_on_host(batch["valid"], batch["label_weights"], fresh)
        yield StepInput(batch, counts, signals())


def _counted_on_devices(
    program: Program, stream: Stream, sequences_seen: int, signals: Callable[[], HostSignals]
) -> Iterator[StepInput]:
    """Yield the inputs of one of several processes.

    They are counted on the devices while these are busy with the step before, so that no step waits
    for the count: signals are then as old as that.
    """
    layout = program.layout
    sum_over_hosts = make_sum_over_hosts(layout)
    rows = layout.rows(program.batch_shape.batch_size)
    # One batch is always on its way; its counts are read when the next is counted.
    pending: tuple[Mapping[str, jax.Array], int, Any] | None = None
    for seen_before, arrays in stream.iterate(sequences_seen, rows):
        batch = program.place(arrays)
        fresh = _fresh_sequences(program, stream, seen_before)
        placed_signals = place_signals(layout, signals())
        sums = sum_over_hosts(
            batch["valid"], batch["label_weights"], np.int32(fresh), placed_signals
        )
        hosts.serialize_on_cpu(sums)
        if pending is not None:
            yield _agreed_input(*pending)
        pending = (batch, fresh, sums)


def _agreed_input(batch: Mapping[str, jax.Array], fresh: int, sums: Any) -> StepInput:
    """Return a step's input from the sums over all hosts."""
    counts, signals = jax.device_get(sums)
    stop, save = signals.tolist()
    return StepInput(batch, BatchCounts(fresh, *counts), HostSignals(stop > 0, save))


def _fresh_sequences(program: Program, stream: Stream, seen_before: int) -> int:
    """Count the new sequences of a batch; they repeat only after all were seen."""
    return min(program.batch_shape.batch_size, max(0, stream.sequences - seen_before))
