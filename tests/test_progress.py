"""Lines on a run's progress: where it goes on, and time left that follows from steps done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kdjax import progress as module
from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.progress import Progress, Reporter


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time that was set."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Return the clock of progress lines; a line comes however soon after the one before."""
    fake_time = Time()
    monkeypatch.setattr(module, "time", fake_time)
    monkeypatch.setattr(module, "INTERVAL", -1.0)
    return fake_time


def after(steps: int) -> Progress:
    """Return a run's state after some of its 100 steps, ten tokens each."""
    ledger = Ledger.open(Budget("tokens", 1000.0))
    ledger = replace(ledger, phases=(steps,), padded_tokens=10 * steps, tokens=10 * steps)
    return Progress(ledger, {"loss": 1.0})


def lines_of(steps: list[int], seconds: float, clock: Time, capsys: Any) -> list[str]:
    """Return what a run shows that does these steps, so many seconds after one another."""
    with Reporter() as reporter:
        watch = reporter.track("scratch, seed 0")
        for step in steps:
            watch(after(step))
            clock.now += seconds
    lines: list[str] = capsys.readouterr().err.splitlines()
    return lines


def test_resumed_run_says_where_it_goes_on(clock: Time, capsys: Any) -> None:
    first, *_ = lines_of([41, 42], 1.0, clock, capsys)
    assert first == "scratch, seed 0: going on after step 40"


def test_run_from_its_start_says_nothing_of_going_on(clock: Time, capsys: Any) -> None:
    assert not any("going on" in line for line in lines_of([1, 2, 3], 1.0, clock, capsys))


def test_time_left_follows_from_rate_once_steps_have_settled(clock: Time, capsys: Any) -> None:
    lines = lines_of([1, 2, 3, 4, 5], 2.0, clock, capsys)
    # Two seconds after the first step nothing is said yet.
    assert "? left" in lines[0]
    # Of 1,000 tokens 960 are left, at 5 tokens a second.
    assert "step 4" in lines[2]
    assert "3:12 left" in lines[2]
