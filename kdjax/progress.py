"""Progress: budget spent, tokens a second, time left.

In a terminal it is a live line, elsewhere now and then a line. Of several processes the main one
alone logs progress; all log warnings, and each line names its process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kdjax.budget.ledger import Ledger
from kdjax.runtime import process_logging

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
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._waiting = ""
        self._stages: set[str] = set()
        self._said: set[str] = set()
        # In a terminal the first line comes at once; elsewhere only what takes a while is shown.
        self._last_shown = -INTERVAL if self._console.is_terminal else time.monotonic()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._waiting = ""
            if self._timer is not None:
                self._timer.cancel()
        self._live.stop()

    def log(self, text: str, *, once: bool = False) -> None:
        """Print a line that stays.

        Args:
            text: the line.
            once: whether it is not printed again.
        """
        if process_logging.is_main_process():
            with self._lock:
                if once and text in self._said:
                    return
                self._said.add(text)
                # What was to be shown later is older than this.
                self._waiting = ""
                self._print(text)

    def warn(self, text: str) -> None:
        """Print a line that stays, from any process; the same one is printed once."""
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                self._print(f"kdjax: {text}")

    def stage(self, text: str) -> None:
        """Announce a stage, which may take a while: a line at once, also without a terminal.

        What begins again, as in the next study of a sweep, is mostly done: it is a `status`.
        """
        if text in self._stages:
            self.status(text)
        elif process_logging.is_main_process():
            self._stages.add(text)
            with self._lock:
                self._show(text)

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; without a terminal, one every `INTERVAL`.

        One that comes too soon is shown later, if nothing newer has come by then: what goes on for
        long is said, however soon after another line it began.
        """
        if not process_logging.is_main_process():
            return
        interval = REFRESH if self._console.is_terminal else INTERVAL
        with self._lock:
            wait = self._last_shown + interval - time.monotonic()
            if wait <= 0:
                self._show(text)
                return
            self._waiting = text
            if self._timer is None:
                self._timer = threading.Timer(wait, self._show_waiting)
                self._timer.daemon = True
                self._timer.start()

    def _show_waiting(self) -> None:
        """Show the line that came too soon, unless a newer one was shown."""
        with self._lock:
            self._timer = None
            if self._waiting:
                self._show(self._waiting)

    def _show(self, text: str) -> None:
        """Show a line that the next one replaces; the caller holds the lock."""
        self._waiting = ""
        self._last_shown = time.monotonic()
        if self._console.is_terminal:
            line = Text(process_logging.prefix() + text, no_wrap=True, overflow="ellipsis")
            self._live.start()
            self._live.update(line, refresh=True)
        else:
            self._print(text)

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
            line = (
                f"{name}: {ledger.share:4.0%} of {ledger.budget}, step {ledger.steps:,}, loss "
                f"{progress.metrics['loss']:.3f}"
            )
            # The first steps are slow, and say nothing of the speed.
            if seconds >= SETTLED:
                if speed := _speed(first, ledger):
                    line += f", {speed:,.0f} tokens/s"
                line += self._time_left(ledger, (ledger.used - first.used) / seconds)
            self.status(line)

        return show

    def _time_left(self, ledger: Ledger, spent_per_second: float) -> str:
        """Return the time left for a run, and for all runs where it is known, as a line's end.

        Args:
            ledger: what the run has spent so far, and of what budget.
            spent_per_second: amount of its budget that it spends in a second; 0: nothing.
        """
        if not spent_per_second:
            return ""
        run_seconds = ledger.remaining / spent_per_second
        words = f", {_duration(run_seconds)} left"
        # Runs that are still to come are as fast as those that were seen.
        if self._budget and self._spent:
            elapsed = time.monotonic() - (self._started or 0.0)
            all_seconds = (self._budget - self._spent) * elapsed / self._spent
            words += f", {_duration(max(run_seconds, all_seconds))} for all runs"
        return words


def _speed(first: Ledger, ledger: Ledger) -> float:
    """Return the tokens that a run sees in a second of its steps and of waiting for their input.

    Args:
        first: its ledger after the first step that was seen here.
        ledger: its ledger now.
    """
    seconds = _step_seconds(ledger) - _step_seconds(first)
    if seconds <= 0:
        return 0.0
    return (ledger.tokens - first.tokens) / seconds


def _step_seconds(ledger: Ledger) -> float:
    """Return the seconds that a run's steps took, without compiling, evaluating and saving."""
    return ledger.seconds.get("compute", 0.0) + ledger.seconds.get("input", 0.0)


def _duration(seconds: float) -> str:
    """Return seconds as `minutes:seconds`, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"
