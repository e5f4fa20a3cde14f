"""When a run saves: every so many seconds, when it is told to stop, and at its end."""

from __future__ import annotations

import time

from kdjax.parallel.host_sums import HostSignals
from kdjax.parallel.preemption import PREEMPTION


class CheckpointPolicy:
    """The decision to save, from the clock and from signals.

    Processes have clocks of their own, so a checkpoint that is due by one of them becomes a signal.
    It comes back once all processes know of it, perhaps some steps later. Checkpoints are numbered,
    so that one is not saved twice meanwhile. The end of a run saves in any case.
    """

    def __init__(self, seconds: float):
        """Begin to count the time.

        Args:
            seconds: time between two checkpoints.
        """
        self._seconds = seconds
        self._begun = 0
        self._last = time.monotonic()

    def signals(self) -> HostSignals:
        """Return the requests of this process: to save, to stop."""
        save = self._begun + 1 if time.monotonic() - self._last >= self._seconds else 0
        return HostSignals(PREEMPTION.stop_requested(), save)

    def checkpoint_is_due(self, signals: HostSignals) -> bool:
        """Return whether to save, by the signals that all processes agreed on."""
        return signals.save > self._begun

    def count_checkpoint(self) -> None:
        """Count a checkpoint that was begun: the next is due after as many seconds."""
        self._begun += 1
        self._last = time.monotonic()
