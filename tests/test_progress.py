"""Lines on a run's progress: where it goes on, and time left that follows from steps done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

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
    ledger = replace(ledger, steps_by_phase=(steps,), padded_tokens=10 * steps, tokens=10 * steps)
    return Progress(ledger, {"loss": 1.0})


class StoppedTimer:
    """A timer that a test lets end."""

    started: ClassVar[list[StoppedTimer]] = []

    def __init__(self, seconds: float, ended: Callable[[], None]) -> None:
        self.seconds = seconds
        self.ended = ended

    def start(self) -> None:
        """Take note of the timer."""
        self.started.append(self)

    def cancel(self) -> None:
        """Do nothing: this timer ends when the test says so."""


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
    # Two seconds after the first step nothing is said of speed or time yet.
    assert lines[0] == "scratch, seed 0:   2% of 1000 tokens, step 2, loss 1.000"
    # Of 1,000 tokens 960 are left, at 5 tokens a second.
    assert "step 4" in lines[2]
    assert "3:12 left" in lines[2]


def test_speed_is_of_steps_and_their_input_alone(clock: Time, capsys: Any) -> None:
    with Reporter() as reporter:
        watch = reporter.track("scratch, seed 0")
        for step in (1, 2, 3):
            progress = after(step)
            # Most of the time goes into compiling and evaluating.
            seconds = {"compute": 0.4 * step, "input": 0.1 * step, "compile": 60.0}
            watch(Progress(replace(progress.ledger, seconds=seconds), progress.metrics))
            clock.now += 30.0
    # Ten tokens in half a second.
    assert ", 20 tokens/s, " in capsys.readouterr().err


def test_line_that_comes_too_soon_is_shown_when_nothing_newer_has_come(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    StoppedTimer.started.clear()
    monkeypatch.setattr(module.threading, "Timer", StoppedTimer)
    with Reporter() as reporter:
        reporter.status("evaluating")
        reporter.status("fine-tuning")
        (timer,) = StoppedTimer.started
        assert 0 < timer.seconds <= module.INTERVAL
        assert capsys.readouterr().err == ""
        timer.ended()
        assert capsys.readouterr().err == "fine-tuning\n"
        # A line that stays is newer than what was to be shown.
        reporter.status("compiling")
        reporter.log("done")
        StoppedTimer.started[-1].ended()
        assert capsys.readouterr().err == "done\n"


def test_stage_is_said_at_once_and_a_warning_once(capsys: Any) -> None:
    with Reporter() as reporter:
        reporter.stage("training the tokenizer")
        reporter.stage("training the tokenizer")
        reporter.warn("the text repeats")
        reporter.warn("the text repeats")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training the tokenizer", "kdjax: the text repeats"]
