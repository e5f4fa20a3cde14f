"""Where the wall-clock of a command goes: every moment counts once, so the parts add up to the
whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SETTING_UP = "setting up"
"""The kind of what belongs to no block."""
COMPILE = "compile"
_COMPILING = "/jax/core/compile/"
"""What the names of JAX's events of tracing, lowering and compiling begin with."""


@dataclass(frozen=True)
class Mark:
    """A moment, and the seconds by kind until then."""

    moment: float = field(default_factory=time.perf_counter)
    seconds: Mapping[str, float] = field(default_factory=dict)


class Clock:
    """Adds up the seconds of the main thread by kind: `with CLOCK("text"): ...`.

    Of blocks inside one another the inner one counts. Whatever the block, tracing and compiling
    count as `compile`,
    once `listen` was called: JAX tells when it did so.
    """

    def __init__(self) -> None:
        """Starts, with `SETTING_UP`."""
        self._kinds = [SETTING_UP]
        self._whole = False
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter()
        self._compiled = 0.0
        self._listens = False

    def listen(self) -> None:
        """Hears from JAX from now on."""
        import jax  # noqa: PLC0415 - a command line with a mistake in it ends before JAX is loaded

        if not self._listens:
            jax.monitoring.register_event_time_span_listener(self._heard)
        self._listens = True

    @contextmanager
    def __call__(self, kind: str, *, whole: bool = False) -> Iterator[None]:
        """Counts the block as of a kind.

        Args:
            kind: what it is called.
            whole: whether the blocks inside, and what is compiled there, count as this kind, too.
        """
        if self._whole or threading.current_thread() is not threading.main_thread():
            yield
            return
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
        """This moment, for `since`."""
        self._count()
        return Mark(self._since, dict(self._seconds))

    def since(self, mark: Mark) -> dict[str, float]:
        """Seconds by kind since a moment; they add up to all that has passed."""
        now = self.mark()
        passed = {
            kind: seconds - mark.seconds.get(kind, 0.0) for kind, seconds in now.seconds.items()
        }
        return {kind: seconds for kind, seconds in passed.items() if seconds > 0}

    def _count(self) -> None:
        now = time.perf_counter()
        self._add(self._kinds[-1], now - self._since)
        self._since = now

    def _add(self, kind: str, seconds: float) -> None:
        self._seconds[kind] = self._seconds.get(kind, 0.0) + seconds

    def _heard(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        """JAX has traced or compiled, for instance a function that another one calls: each second
        counts once."""
        own = threading.current_thread() is threading.main_thread()
        if own and not self._whole and event.startswith(_COMPILING):
            seconds = max(0.0, end_time - max(start_time, self._compiled))
            self._compiled = end_time
            self._add(COMPILE, seconds)
            self._add(self._kinds[-1], -seconds)


CLOCK = Clock()
"""The command's."""
