"""Comparisons by turns."""

from __future__ import annotations

import random
import time

import pytest

from benchmarks.timing import MatmulRate, in_turn, ratio, xla_product

pytestmark = pytest.mark.system


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
        """Return at once, as nothing runs on."""


def test_ratio_of_neighbours_ignores_a_slow_moment() -> None:
    base = [1.0, 10.0, 1.0, 5.0, 1.0]
    doubled = ratio([2 * seconds for seconds in base], base)
    assert (doubled.median, doubled.low, doubled.high) == (2, 2, 2)


def test_interval_holds_the_median_and_widens_with_the_spread() -> None:
    chance = random.Random(0)
    ones = [1.0] * 15
    narrow = ratio([chance.uniform(1.99, 2.01) for _ in ones], ones)
    wide = ratio([chance.uniform(1.5, 2.5) for _ in ones], ones)
    assert narrow.low < narrow.median < narrow.high
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_runners_take_turns_in_changing_orders() -> None:
    record: list[str] = []
    runners = {name: Sleeper(name, 1e-4, record) for name in "abc"}
    times = in_turn(runners, rounds=6, seconds=1e-5)
    assert all(len(blocks.wall) == len(blocks.processor) == 6 for blocks in times.values())
    # A block is a warm-up and one step
    turns = [tuple(record[at : at + 6 : 2]) for at in range(12, len(record), 6)]
    assert len(turns) == 6
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1


def test_block_lasts_as_long_as_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that nothing but steps moves
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", pass_time)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    record: list[str] = []
    times = in_turn({"a": Sleeper("a", 1.0, record)}, rounds=1, seconds=20.0)
    # Before the block's 20 steps come those that say how long one takes, and the block's warm-up.
    assert len(record) == 5 + 20
    assert times["a"].wall == [1.0]


def test_best_matmul_rate_has_one_entry_a_measurement() -> None:
    sizes: list[int] = []

    def idle(size: int) -> object:
        return lambda: sizes.append(size)

    rate = MatmulRate({"XLA": xla_product("float32"), "idle": idle}, (32, 64))  # type: ignore[dict-item]
    rate()
    rate()
    assert set(sizes) == {32, 64}
    assert rate.best == [
        pytest.approx(max(pair)) for pair in zip(*rate.rates.values(), strict=True)
    ]
    assert len(rate.best) == 2
