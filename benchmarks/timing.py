"""Timing that survives a busy machine: runners take turns, and ratios are of neighbours."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

RESAMPLES = 2000


class Runner(Protocol):
    """Something that makes steps."""

    def step(self) -> Any:
        """Begin a step."""

    def wait(self) -> None:
        """Wait until all steps begun are done."""


@dataclass
class Times:
    """Seconds of a step, one entry a block.

    Attributes:
        wall: by the clock.
        processor: of all the process's threads together.
    """

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def block(self, runner: Runner, steps: int) -> None:
        """Time some steps, after one that is not timed."""
        # It brings caches back, and lets other runners' threads fall asleep.
        runner.step()
        runner.wait()
        wall = time.perf_counter()
        processor = time.process_time()
        for _ in range(steps):
            runner.step()
        runner.wait()
        self.wall.append((time.perf_counter() - wall) / steps)
        self.processor.append((time.process_time() - processor) / steps)


@dataclass(frozen=True)
class Ratio:
    """A median and its interval.

    Attributes:
        median: median of the ratios.
        low, high: the median's 95% interval, by bootstrap over the ratios.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Return the median of ratios of neighbours, and its 95% interval."""
    ratios = np.asarray(numerator) / np.asarray(denominator)
    # Rounds are drawn anew with replacement, and the middle 95% of their medians are the interval.
    rounds = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[rounds], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def in_turn(
    runners: Mapping[str, Runner],
    rounds: int,
    seconds: float,
    beside: Callable[[], None] = lambda: None,
    chance: random.Random | None = None,
) -> dict[str, Times]:
    """Run blocks of steps of each runner in turn, in a new random order every round.

    Args:
        runners: by name.
        rounds: how many blocks of each.
        seconds: about how long a block lasts, at least one step.
        beside: called at the start of every round, to measure something else at that moment.
        chance: decides the orders.
    """
    chance = chance or random.Random(0)
    # The first block pays for kernels, autotuning and allocations; the second times a step.
    steps = {}
    for name, runner in runners.items():
        first = Times()
        first.block(runner, 1)
        first.block(runner, 1)
        steps[name] = max(1, round(seconds / first.wall[-1]))
    times = {name: Times() for name in runners}
    for _ in range(rounds):
        beside()
        order = list(runners)
        chance.shuffle(order)
        for name in order:
            times[name].block(runners[name], steps[name])
    return times


def epochs_in_turn(
    runners: Mapping[str, Runner], rounds: int, beside: Callable[[], None] = lambda: None
) -> dict[str, Times]:
    """Run something long of each runner in turn, in a new random order every round.

    Args:
        runners: by name; what each calls a step takes so long that one is a block.
        rounds: how many of each are timed, after one that is not.
        beside: as for `in_turn`.
    """
    chance = random.Random(0)
    # The first one compiles.
    for runner in runners.values():
        runner.step()
        runner.wait()
    times = {name: Times() for name in runners}
    for _ in range(rounds):
        beside()
        for name in chance.sample(list(runners), len(runners)):
            wall = time.perf_counter()
            processor = time.process_time()
            runners[name].step()
            runners[name].wait()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].processor.append(time.process_time() - processor)
    return times


class MatmulRate:
    """The best rate of square matmuls right now, in FLOPs a second.

    Attributes:
        rates: rates by library, one entry a measurement.
    """

    def __init__(
        self, libraries: Mapping[str, Callable[[int], Callable[[], None]]], sizes: Sequence[int]
    ) -> None:
        """Prepare the products.

        Args:
            libraries: by name, a function that takes a size and returns one that does a product and
                waits for it.
            sizes: of the matrices.
        """
        self._products = {}
        for name, make in libraries.items():
            self._products[name] = {size: make(size) for size in sizes}
        self.rates: dict[str, list[float]] = {name: [] for name in libraries}

    def __call__(self, repeats: int = 3) -> None:
        """Measure once more, size by size and library by library in turn."""
        best = dict.fromkeys(self._products, 0.0)
        for _ in range(repeats):
            # Neighbours in time see the same load.
            for name, products in self._products.items():
                for size, product in products.items():
                    product()
                    started = time.perf_counter()
                    product()
                    best[name] = max(best[name], 2 * size**3 / (time.perf_counter() - started))
        for name, rate in best.items():
            self.rates[name].append(rate)

    @property
    def best(self) -> list[float]:
        """Return the faster library's rate, one entry a measurement."""
        return [max(rates) for rates in zip(*self.rates.values(), strict=True)]


def xla_product(dtype: str) -> Callable[[int], Callable[[], None]]:
    """Return what makes products by XLA on JAX's first device."""
    multiply = jax.jit(jnp.matmul)

    def make(size: int) -> Callable[[], None]:
        square = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
        return lambda: jax.block_until_ready(multiply(square, square))

    return make
