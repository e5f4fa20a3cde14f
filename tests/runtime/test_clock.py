"""A command's wall-clock in parts that add up to the whole."""

from __future__ import annotations

import threading
import time

import jax
import pytest

from kdjax.runtime.clock import COMPILE, SETTING_UP, Clock
from kdjax.training.stopwatch import Stopwatch


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, for a test to change."""
    moment = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: moment[0])
    return moment


def test_nested_blocks_count_each_second_once(now: list[float]) -> None:
    clock = Clock()
    now[0] += 1
    begun = clock.mark()
    now[0] += 2
    with clock.measure("text"):
        now[0] += 4
        with clock.measure("report"):
            now[0] += 8
        now[0] += 16
    now[0] += 32
    assert clock.since(begun) == {SETTING_UP: 34, "text": 20, "report": 8}
    assert sum(clock.since(begun).values()) == now[0] - begun.moment


def test_whole_block_counts_inner_blocks_as_its_kind(now: list[float]) -> None:
    clock = Clock()
    with clock.measure("teacher", whole=True), clock.measure("compute"):
        now[0] += 1
    with clock.measure("compute"):
        now[0] += 2
    assert clock.since(clock.mark()) == {}
    assert clock.mark().seconds == {SETTING_UP: 0, "teacher": 1, "compute": 2}


def test_error_in_a_block_ends_it(now: list[float]) -> None:
    clock = Clock()
    with pytest.raises(KeyError), clock.measure("teacher", whole=True), clock.measure("compute"):
        now[0] += 1
        raise KeyError
    with clock.measure("report"):
        now[0] += 2
    assert clock.mark().seconds == {SETTING_UP: 0, "teacher": 1, "report": 2}


def test_blocks_of_other_threads_do_not_count(now: list[float]) -> None:
    clock = Clock()

    def other() -> None:
        with clock.measure("input"):
            now[0] += 1

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert clock.mark().seconds == {SETTING_UP: 1}


def test_compilation_in_any_block_counts_as_compile() -> None:
    clock = Clock()
    clock.listen()
    clock.listen()
    begun = clock.mark()
    with clock.measure("evaluation"):
        jax.jit(lambda x: x @ x.T + 1)(jax.numpy.ones((3, 5))).block_until_ready()
    parts = clock.since(begun)
    assert parts[COMPILE] > 0
    assert sum(parts.values()) == pytest.approx(clock.mark().moment - begun.moment, abs=1e-3)
    with clock.measure("teacher", whole=True):
        jax.jit(lambda x: x @ x.T + 2)(jax.numpy.ones((3, 5)))
    assert clock.since(begun)[COMPILE] == parts[COMPILE]


@pytest.mark.parametrize("jump", [0.0, -1e7])
def test_event_inside_another_counts_once_whatever_the_wall_clock_does(
    now: list[float], jump: float
) -> None:
    clock = Clock()
    clock.listen()
    with clock.measure("evaluation"):
        begun = clock.mark()
        # The outer event lasts from 10 to 13, the inner one from 11 to 12; between, time is set.
        now[0] += 2
        jax.monitoring.record_event_time_span("/jax/core/compile/inner", 11.0, 12.0)
        now[0] += 1
        jax.monitoring.record_event_time_span("/jax/core/compile/outer", 10.0 + jump, 13.0 + jump)
        now[0] += 4
        assert clock.since(begun) == {COMPILE: 2.0, "evaluation": 5.0}


def test_event_across_a_jump_of_the_wall_clock_is_no_longer_than_what_has_passed(
    now: list[float],
) -> None:
    clock = Clock()
    clock.listen()
    with clock.measure("evaluation"):
        begun = clock.mark()
        now[0] += 3
        jax.monitoring.record_event_time_span("/jax/core/compile/a", 10.0, 1e9)
        jax.monitoring.record_event_time_span("/jax/core/compile/b", 1e9, 10.0)
        assert clock.since(begun) == {COMPILE: 3.0}


def test_stopwatch_of_a_run_counts_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("kdjax.training.stopwatch.CLOCK", clock)
    run = Stopwatch({})
    with run.measure("input"):
        time.sleep(0.001)
    assert clock.mark().seconds["input"] == pytest.approx(run.seconds["input"], abs=1e-3)
