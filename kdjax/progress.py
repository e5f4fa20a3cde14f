"""Progress: budget spent, tokens a second, time left.

In a terminal it is a live line, elsewhere now and then a line. Of several processes the main one
alone logs progress; all log warnings, and each line names its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kdjax import process_logging
from kdjax.budget.ledger import Ledger

INTERVAL = 10.0
"""Seconds between lines where there is no terminal."""
REFRESH = 0.2
"""Seconds between changes of the line in a terminal."""
SETTLED = 3.0
"""Seconds of steps that the time left follows from, at least: the first steps of a run are slow."""


@dataclass(frozen=True)
class Progress:
    """A run's state after a step.

    Attributes:
        ledger: what the run has spent so far, and of what budget.
        metrics: losses of the step by name.
    """

    ledger: Ledger
    metrics: dict[str, float]


class Reporter:
    """A command's progress and log lines, on standard error. A context manager."""

    def __init__(self) -> None:
        self._budget = 0.0
        self._spent = 0.0
        self._started: float | None = None
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        # In a terminal the first line comes at once; elsewhere only what takes a while is shown.
        self._last_shown = time.monotonic()
        if self._console.is_terminal:
            self._last_shown = -INTERVAL

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
        """Print a line that stays."""
        if process_logging.is_main_process():
            self._print(text)

    def warn(self, text: str) -> None:
        """Print a line that stays, from any process."""
        self._print(f"kdjax: {text}")

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; without a terminal, one every `INTERVAL`."""
        if not process_logging.is_main_process():
            return
        interval = INTERVAL
        if self._console.is_terminal:
            interval = REFRESH
        now = time.monotonic()
        if now - self._last_shown < interval:
            return
        self._last_shown = now
        if self._console.is_terminal:
            line = Text(process_logging.prefix() + text, no_wrap=True, overflow="ellipsis")
            self._live.start()
            self._live.update(line, refresh=True)
        else:
            self.log(text)

    def _print(self, text: str) -> None:
        self._console.print(process_logging.prefix() + text, markup=False, soft_wrap=True)

    def set_budget(self, budget: float) -> None:
        """Set what all runs from now on may spend together, from which the time left follows.

        Args:
            budget: size of the budget in the unit of the runs' budgets.
        """
        self._budget = budget
        self._spent = 0
        self._started = None

    def track(self, name: str) -> Callable[[Progress], None]:
        """Return a function that shows a run's budget, loss, speed and time left after each step.

        Args:
            name: name of the run as it is shown.
        """
        begun = 0.0
        first: Ledger | None = None
        last_used = 0.0

        def show(progress: Progress) -> None:
            nonlocal begun, first, last_used
            ledger = progress.ledger
            now = time.monotonic()
            if first is None:
                # From the first step's end: what came before it, starting up, says nothing of the
                # speed.
                begun = now
                first = ledger
                last_used = ledger.used
                self._started = self._started or now
                if ledger.steps > 1:
                    self.log(f"{name}: going on after step {ledger.steps - 1}")
                return
            self._spent += ledger.used - last_used
            last_used = ledger.used
            seconds = now - begun
            speed = (ledger.tokens - first.tokens) / seconds
            time_left = self._time_left(ledger, (ledger.used - first.used) / seconds, begun)
            self.status(
                f"{name}: {ledger.share:4.0%} of {ledger.budget}, {time_left}, step "
                f"{ledger.steps}, loss {progress.metrics['loss']:.3f}, {speed:,.0f} tokens/s"
            )

        return show

    def _time_left(self, ledger: Ledger, rate: float, begun: float) -> str:
        """Return the time left for a run, and for all runs where it is known.

        Args:
            ledger: what the run has spent so far, and of what budget.
            rate: amount of its budget that it spends in a second; 0: nothing.
            begun: time at which its first step ended.
        """
        if not rate or time.monotonic() - begun < SETTLED:
            return "? left"
        run_seconds = ledger.remaining / rate
        words = f"{_duration(run_seconds)} left"
        # Runs that are still to come are as fast as those that were seen.
        if self._budget and self._spent:
            elapsed = time.monotonic() - (self._started or begun)
            all_seconds = (self._budget - self._spent) * elapsed / self._spent
            words += f", {_duration(max(run_seconds, all_seconds))} for all runs"
        return words


def _duration(seconds: float) -> str:
    """Return seconds as `minutes:seconds`, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
