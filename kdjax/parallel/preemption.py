"""The signals to stop: SIGTERM, which a machine that is about to be taken away sends first, SIGHUP,
which a terminal that is closed sends, and SIGINT, which Ctrl-C sends."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from kdjax.errors import Stopped
from kdjax.runtime import process_logging

INTERRUPTED = 130
"""Exit status after SIGINT, as shells give it."""
_LOOK_SECONDS = 0.2
"""Seconds between looks for a signal while this process waits."""
_SHOW_CURSOR = b"\x1b[?25h"
"""What a terminal shows its cursor after; a live line hides it."""


_SWALLOWING = ("_xla_gc_callback", "__del__")
"""Functions that Python calls while it collects garbage: an exception in one is printed and lost.
The first is JAX's."""
_RETRY_SECONDS = 0.05
"""Seconds after which a signal that came in one of them is sent again."""


class Preemption:
    """Whether this process was asked to stop.

    Until `handlers` is entered, the signals do what they did before. Outside of
    `between_steps` they end what is being done at once, which is as safe as a kill. Inside, they
    are only noted: the training loop calls `stop_requested` once a step, saves, and ends. A second
    SIGINT ends the process at once, as a kill does, whatever it is doing.
    """

    def __init__(self) -> None:
        self._stop_requested = False
        self._training = False
        self._interrupted = False

    @contextmanager
    def handlers(self) -> Iterator[None]:
        """Let SIGTERM and SIGHUP end the block with `Stopped`, and SIGINT with KeyboardInterrupt.

        Where the signal was only noted, either is `Stopped`. Nothing changes in a thread other than
        the main one, which alone gets signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._interrupted = False
        # Python runs handlers between two of its own instructions, which a compilation holds up for
        # minutes. A thread hears of a second SIGINT at once.
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_end_on_second, args=(reader,), daemon=True).start()
        on_sigterm = signal.signal(signal.SIGTERM, self._on_sigterm)
        on_sigint = signal.signal(signal.SIGINT, self._on_sigint)
        # `nohup` has it ignored, and then it stays so.
        on_sighup = signal.getsignal(signal.SIGHUP)
        if on_sighup == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, on_sighup)
            signal.signal(signal.SIGTERM, on_sigterm)
            self._stop_requested = False
            # After the first SIGINT the next one ends the process, to its very end.
            if not self._interrupted:
                signal.signal(signal.SIGINT, on_sigint)
                signal.set_wakeup_fd(before)
                writer.close()

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Let signals wait for `stop_requested` in the block, and at the latest for its end.

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

    def wait(self, seconds: float) -> None:
        """Wait so many seconds, or until a signal asks to stop."""
        end = time.monotonic() + seconds
        # Python goes on with a sleep that a signal interrupted.
        while not self._stop_requested and (remaining := end - time.monotonic()) > 0:
            time.sleep(min(remaining, _LOOK_SECONDS))

    @property
    def interrupted(self) -> bool:
        """Return whether SIGINT came since `handlers` was entered."""
        return self._interrupted

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True
        if self._training:
            return
        if _is_swallowed(frame):
            _send_again(signal.SIGTERM)
            return
        # A SIGINT that came at a bad moment is sent again as this signal, and stays what it was.
        raise KeyboardInterrupt if self._interrupted else Stopped

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            _end_now()
        self._interrupted = True
        if not self._training and _is_swallowed(frame):
            # Not as SIGINT, of which two end the process at once.
            _send_again(signal.SIGTERM)
            return
        if not self._training:
            raise KeyboardInterrupt
        self._stop_requested = True
        _say("interrupted; saving what is done; Ctrl-C again ends it at once")


def _is_swallowed(frame: FrameType | None) -> bool:
    """Return whether an exception that is raised where a signal came would be lost."""
    while frame is not None:
        if frame.f_code.co_name in _SWALLOWING:
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    """Send this process a signal in a moment, when it is elsewhere."""
    timer = threading.Timer(_RETRY_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _end_on_second(reader: socket.socket) -> None:
    """End this process when SIGINT has come twice; return when the socket is closed.

    Args:
        reader: socket that gets the number of each signal as it comes.
    """
    interrupts = 0
    with reader:
        while numbers := reader.recv(64):
            interrupts += numbers.count(signal.SIGINT)
            if interrupts >= 2:
                _end_now()


def _end_now() -> NoReturn:
    """End this process as a kill would: what is whole stays, and the same command goes on."""
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR)
    _say("interrupted again; ended at once; the same command goes on from the last checkpoint")
    os._exit(INTERRUPTED)


def _say(text: str) -> None:
    """Print a line to standard error, also in the middle of another one's printing."""
    with suppress(OSError):
        os.write(2, f"{process_logging.prefix()}kdjax: {text}\n".encode())


PREEMPTION = Preemption()
"""Signals are a process's, so there is one."""
