"""A run's wall-clock seconds by kind of work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import jax

from kdjax.runtime.clock import CLOCK


class Stopwatch:
    """Adds up a run's wall-clock seconds by kind of work: `with stopwatch.measure("input"): ...`.

    A profile shows the block under that name, and the command's clock counts it.
    """

    def __init__(self, seconds: Mapping[str, float]):
        self._seconds = dict(seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds so far, by kind."""
        return dict(self._seconds)

    def add(self, kind: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def measure(self, kind: str) -> AbstractContextManager[None]:
        """Add the seconds that the block takes."""
        return shared([self], kind)


@contextmanager
def shared(stopwatches: Sequence[Stopwatch], kind: str) -> Iterator[None]:
    """Add the seconds that the block takes to several stopwatches, an even share to each."""
    with CLOCK.measure(kind), jax.profiler.TraceAnnotation(kind):
        # The seconds count even if the block raises.
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            for stopwatch in stopwatches:
                stopwatch.add(kind, seconds / len(stopwatches))
