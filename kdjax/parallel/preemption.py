"""The signal to stop: SIGTERM, which a machine that is about to be taken away sends first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kdjax.errors import Stopped


class Preemption:
    """Whether this process was asked to stop.

    Until `sigterm_handler` is entered, SIGTERM does what it did before. Outside of `between_steps`
    it ends what is being done at once, which is as safe as a kill. Inside, it is only noted:
    the training loop calls `stop_requested` once a step, saves, and ends.
    """

    def __init__(self) -> None:
        self._stop_requested = False
        self._training = False

    @contextmanager
    def sigterm_handler(self) -> Iterator[None]:
        """Let SIGTERM end the block with `Stopped`.

        Nothing changes in a thread other than the main one, which alone gets signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            self._stop_requested = False

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Let SIGTERM wait for `stop_requested` in the block, and at the latest for its end.

        Raises:
            Stopped: the block ended by itself after a signal.
        """
        # The signal's handler only notes it from here on.
        self._training = True
        try:
            yield
        finally:
            self._training = False
        # A signal that nobody asked about in the block counts now.
        if self._stop_requested:
            raise Stopped

    def stop_requested(self) -> bool:
        """Return whether to save, and end.

        Several processes agree on it by `kdjax.parallel.host_sums`.
        """
        return self._stop_requested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True
        if not self._training:
            raise Stopped


PREEMPTION = Preemption()
"""Signals are a process's, so there is one."""
