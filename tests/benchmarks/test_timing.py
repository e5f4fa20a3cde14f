"""Comparisons by turns."""

from __future__ import annotations

import random
import time

import pytest

from benchmarks.timing import MatmulRate, in_turn, ratio, xla_product


class Sleeper:
    """A runner whose steps take a known time, and a record of when it ran."""

    def __init__(self, name: str, seconds: float, record: list[str]) -> None:
        self.name = name
        self.seconds = seconds
        self.record = record

    def step(self) -> None:
        self.record.append(self.name)
        time.sleep(self.seconds)

    def wait(self) -> None:
        """Nothing runs on."""


def test_the_ratio_is_of_neighbours_so_that_a_slow_moment_does_not_count() -> None:
    base = [1.0, 10.0, 1.0, 5.0, 1.0]
    found = ratio([2 * seconds for seconds in base], base)
    assert (found.median, found.low, found.high) == (2, 2, 2)


def test_the_interval_holds_the_median_and_widens_with_the_spread() -> None:
    chance = random.Random(0)
    ones = [1.0] * 15
    narrow, wide = (ratio([chance.uniform(2 - r, 2 + r) for _ in ones], ones) for r in (0.01, 0.5))
    assert narrow.low < narrow.median < narrow.high
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_runners_take_turns_in_orders_that_change() -> None:
    record: list[str] = []
    runners = {name: Sleeper(name, 1e-4, record) for name in "abc"}
    times = in_turn(runners, rounds=6, seconds=1e-5)
    assert all(len(found.wall) == len(found.processor) == 6 for found in times.values())
    # A block is a warm-up and one step
    turns = [tuple(record[at : at + 6 : 2]) for at in range(12, len(record), 6)]
    assert len(turns) == 6
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1


def test_a_block_lasts_about_as_long_as_asked() -> None:
    record: list[str] = []
    in_turn({"a": Sleeper("a", 1e-3, record)}, rounds=1, seconds=0.02)
    assert 5 < len(record) - 5 < 25


def test_the_best_matmul_rate_is_one_a_measurement() -> None:
    made: list[int] = []

    def idle(size: int) -> object:
        return lambda: made.append(size)

    rate = MatmulRate({"XLA": xla_product("float32"), "idle": idle}, (32, 64))  # type: ignore[dict-item]
    rate()
    rate()
    assert set(made) == {32, 64}
    assert rate.best == [
        pytest.approx(max(pair)) for pair in zip(*rate.found.values(), strict=True)
    ]
    assert len(rate.best) == 2
