"""The wall-clock of a command by kind: every moment counts once, so kinds add up to the whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SETTING_UP = "setting up"
"""The kind of seconds outside every block."""
COMPILE = "compile"
_COMPILING = "/jax/core/compile/"
"""How the names of JAX's events of tracing, lowering and compiling begin."""


@dataclass(frozen=True)
class Mark:
    """A point in time, and the seconds that the clock had counted by kind until then.

    Attributes:
        moment: seconds by `time.perf_counter`.
        seconds: kind -> seconds counted until then.
    """

    moment: float = field(default_factory=time.perf_counter)
    seconds: Mapping[str, float] = field(default_factory=dict)


class Clock:
    """A counter of the main thread's seconds by kind: `with CLOCK.measure("text"): ...`.

    Where blocks lie inside one another, the inner one counts. Whatever the block, tracing and
    compiling count as `compile`, once `listen` was called: JAX reports them.
    """

    def __init__(self) -> None:
        """Start the clock, with `SETTING_UP`."""
        self._kinds = [SETTING_UP]
        self._whole = False
        self._seconds: dict[str, float] = {}
        self._counted_until = time.perf_counter()
        self._compiled_until = self._counted_until
        self._is_listening = False

    def listen(self) -> None:
        """Count JAX's compilations from now on."""
        import jax  # noqa: PLC0415 - a command line with a mistake in it ends before JAX is loaded

        if not self._is_listening:
            jax.monitoring.register_event_time_span_listener(self._on_event)
        self._is_listening = True

    @contextmanager
    def measure(self, kind: str, *, whole: bool = False) -> Iterator[None]:
        """Count the seconds of the block as of a kind.

        Args:
            kind: name of the kind.
            whole: whether the blocks inside, and what is compiled there, count as this kind, too.
        """
        if self._whole or threading.current_thread() is not threading.main_thread():
            yield
            return
        # What has passed belongs to the block around.
        self._count()
        self._kinds.append(kind)
        self._whole = whole
        try:
            yield
        finally:
            self._count()
            self._kinds.pop()
            self._whole = False

    def mark(self) -> Mark:
        """Return the time now and the seconds counted so far, for `since`."""
        self._count()
        return Mark(self._counted_until, dict(self._seconds))

    def since(self, mark: Mark) -> dict[str, float]:
        """Return seconds by kind since a moment; they add up to all that has passed."""
        passed = {}
        for kind, seconds in self.mark().seconds.items():
            difference = seconds - mark.seconds.get(kind, 0.0)
            if difference > 0:
                passed[kind] = difference
        return passed

    def _count(self) -> None:
        """Add the seconds since the last count to the kind of the innermost block."""
        now = time.perf_counter()
        self._add(self._kinds[-1], now - self._counted_until)
        self._counted_until = now

    def _add(self, kind: str, seconds: float) -> None:
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def _on_event(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        """Add the seconds of tracing or compiling to `COMPILE`; take them from the block around."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread and not self._whole and event.startswith(_COMPILING):
            # A function's event covers those of the functions it calls: each second counts once.
            # JAX reads a clock that may jump: no event lasted longer than since the last one ended.
            now = time.perf_counter()
            duration = max(0.0, end_time - start_time)
            seconds = max(0.0, now - max(now - duration, self._compiled_until))
            self._compiled_until = now
            self._add(COMPILE, seconds)
            self._add(self._kinds[-1], -seconds)


CLOCK = Clock()
"""The clock of the command that this process runs."""
