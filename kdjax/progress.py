"""Progress: budget spent, tokens a second, time left. A live line in a terminal, now and then a
line elsewhere.

Of several processes the lead alone tells of progress; all tell of warnings, and each line names its
process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kdjax import loglines
from kdjax.budget.ledger import Ledger

INTERVAL = 10.0
"""Seconds between lines where there is no terminal."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told after a step: the account, and the step's losses."""

    ledger: Ledger
    metrics: dict[str, float]


class Reporter:
    """Tells how a command goes on. A context manager."""

    def __init__(self) -> None:
        self._budget = 0.0
        self._spent = 0.0
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        # In a terminal the first line comes at once; elsewhere only what takes a while is told of.
        self._shown = -INTERVAL if self._console.is_terminal else time.monotonic()
        self._started: float | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def log(self, text: str) -> None:
        """One line that stays."""
        if loglines.is_main_process():
            self._print(text)

    def warn(self, text: str) -> None:
        """One line that stays, from any process."""
        self._print(f"kdjax: {text}")

    def status(self, text: str) -> None:
        """A line that the next one replaces; without a terminal, one every `INTERVAL` seconds."""
        now = time.monotonic()
        if not loglines.is_main_process():
            return
        if self._console.is_terminal:
            if now - self._shown >= 0.2:
                self._live.start()
                self._live.update(
                    Text(loglines.head() + text, no_wrap=True, overflow="ellipsis"), refresh=True
                )
                self._shown = now
        elif now - self._shown >= INTERVAL:
            self.log(text)
            self._shown = now

    def _print(self, text: str) -> None:
        self._console.print(loglines.head() + text, markup=False, soft_wrap=True)

    def set_budget(self, budget: float) -> None:
        """Sets what all runs from now on may spend together, in their budgets' unit; the time left
        follows from it."""
        self._budget = budget
        self._spent = 0
        self._started = None

    def track(self, name: str) -> Callable[[Progress], None]:
        """A watcher for one run: shows its budget, loss, speed and the time left for it and for
        everything."""
        begun = 0.0
        first: Progress | None = None
        last = 0.0

        def told(now: Progress) -> None:
            nonlocal begun, first, last
            if first is None:
                # From the first step's end: what came before it, starting up, says nothing of the
                # speed.
                begun = time.monotonic()
                first = now
                last = now.ledger.used
                self._started = self._started or begun
                return
            self._spent = self._spent + now.ledger.used - last
            last = now.ledger.used
            seconds = time.monotonic() - begun
            rate = (now.ledger.used - first.ledger.used) / seconds
            speed = (now.ledger.tokens - first.ledger.tokens) / seconds
            own = now.ledger.remaining / rate if rate else 0.0
            left = f"{_duration(own) if rate else '?'} left"
            if self._budget and self._spent:
                overall = (
                    (self._budget - self._spent)
                    * (time.monotonic() - (self._started or begun))
                    / self._spent
                )
                left += f", {_duration(max(own, overall))} for all runs"
            self.status(
                f"{name}: {now.ledger.share:4.0%} of {now.ledger.budget}, {left}, "
                f"step {now.ledger.steps}, loss {now.metrics['loss']:.3f}, {speed:,.0f} tokens/s"
            )

        return told


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
