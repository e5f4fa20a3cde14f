"""The record of a step: every figure of it, by name, for `metrics.jsonl`, TensorBoard and Weights &
Biases alike.

Names, units and what they are for: docs/observability.md. A name is `group/member`, or `group` for
the whole of it. What a record says is a pure function of recipe and step, but for what was measured
(`MEASURED`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kdjax.budget.hardware import Peak, peak_memory, utilisation
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import PARTS
from kdjax.config import Schedule
from kdjax.objectives.schedule import value
from kdjax.training.phase import Phase
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch

MEASURED = ("time", "speed/", "seconds/", "memory/")
"""How the names of figures begin that are another each time a step is done."""

_BESIDE = ("evaluation", "checkpoint", "profile")
"""Kinds of seconds between two steps that are not of the steps."""


@dataclass(frozen=True)
class Done:
    """A step that was begun; its figures may still be on their way from the devices.

    Attributes:
        ledger: the account with it.
        phase: which phase it is of, from 0.
        schedule_inputs: when in the run it was.
        metrics: its figures: `loss`, `grad_norm` and `grad_norm/GROUP`, and each term by its key.
            Of several runs that go side by side each is an array.
        seat: the run's number among them.
    """

    ledger: Ledger
    phase: int
    schedule_inputs: ScheduleInputs
    metrics: Mapping[str, jax.Array]
    seat: int = 0

    def fetched(self, *, whole: bool) -> dict[str, float]:
        """Its figures, once it is done.

        Args:
            whole: with the norms of groups, which only a record needs.
        """
        wanted = {name: figure for name, figure in self.metrics.items() if whole or "/" not in name}
        return {
            name: float(np.ravel(figure)[self.seat])
            for name, figure in jax.device_get(wanted).items()
        }


class Meter:
    """Makes the records of a run; it remembers how things stood at the last one."""

    def __init__(
        self,
        phases: Sequence[Phase],
        devices: int,
        ledger: Ledger,
        clock: Stopwatch,
        peak: Peak | None,
        others: Sequence[Stopwatch] = (),
    ):
        """Begins to measure.

        Args:
            phases: the run's.
            devices: on how many it runs.
            ledger: its account now.
            clock: its stopwatch.
            peak: of a device; None: not known, and records have no utilisation.
            others: the stopwatches of runs that go side by side with it; time that passes is shared
                evenly with them.
        """
        self._phases = phases
        self._devices = devices
        self._clock = clock
        self._peak = peak
        self._clocks = (clock, *others)
        self._then = self._now(ledger)

    def record(self, done: Done, figures: Mapping[str, float]) -> dict[str, Any]:
        """The record of a step that is done; what is per second is a mean over the steps since the
        last record."""
        ledger = done.ledger
        return {
            "flops": ledger.total,
            "share": ledger.share,
            "time": round(time.time(), 3),
            "phase": done.phase + 1,
            "learning_rate": done.schedule_inputs.learning_rate,
            **{_name(key): figure for key, figure in figures.items()},
            **self._weights(done),
            "tokens/seen": ledger.tokens,
            "tokens/unique": ledger.unique_tokens,
            "tokens/masked": ledger.masked_tokens,
            **{f"spent/{account}": flops for account, flops in ledger.spent.items()},
            **self._speed(ledger),
            **{
                f"seconds/{kind}": round(seconds, 3)
                for kind, seconds in self._clock.seconds.items()
            },
            "memory/high_water_bytes": peak_memory()[0],
        }

    def _weights(self, done: Done) -> dict[str, float]:
        """The weights of terms that change over the budget, as they were in the step."""
        terms = self._phases[done.phase].objective.terms
        changing = {key: weight for key, weight, _ in terms if isinstance(weight, Schedule)}
        if not changing:
            return {}
        # The others are busy with the next step
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return {
                f"weight/{key}": float(value(weight, done.schedule_inputs.budget_fraction))
                for key, weight in changing.items()
            }

    def _speed(self, ledger: Ledger) -> dict[str, float]:
        before = self._then
        self._then = self._now(ledger)
        now = self._then
        steps = now.steps - before.steps
        seconds = now.seconds - before.seconds
        if steps <= 0 or seconds <= 0:
            return {}
        speed = {
            "speed/step_seconds": seconds / steps,
            "speed/tokens_per_second": (now.tokens - before.tokens) / seconds,
            "speed/input_wait": (now.input - before.input) / seconds,
        }
        if self._peak is not None:
            flops = now.flops - before.flops
            speed["speed/utilisation"] = utilisation(flops, seconds, self._peak, self._devices)
        return {name: float(f"{figure:.6g}") for name, figure in speed.items()}

    def _now(self, ledger: Ledger) -> _Standing:
        beside = sum(clock.seconds.get(kind, 0.0) for clock in self._clocks for kind in _BESIDE)
        return _Standing(
            ledger.steps,
            ledger.tokens,
            sum(ledger.spent[part] for part in PARTS),
            (time.perf_counter() - beside) / len(self._clocks),
            self._clock.seconds.get("input", 0.0),
        )


@dataclass(frozen=True)
class _Standing:
    """How a run stood: steps, tokens and model FLOPs so far, seconds that steps took, and those
    spent on input."""

    steps: int
    tokens: int
    flops: int
    seconds: float
    input: float


def _name(key: str) -> str:
    """What a record calls a figure of a step: a term's loss is a part of `loss`."""
    return key if key in ("loss", "grad_norm") or "/" in key else f"loss/{key}"
