"""The record of a step: every figure of it, by name, for `metrics.jsonl`, TensorBoard and Weights &
Biases alike.

Names, units and what they are for: docs/observability.md. A name is `group/member`, or `group` for
the whole of it. What a record says is a pure function of recipe and step, but for what was measured
(`MEASURED`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from kdjax.budget.hardware import Peak, high_water, utilisation
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import PARTS
from kdjax.config import Schedule
from kdjax.objectives.schedule import value
from kdjax.training.phase import Phase
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch

MEASURED = ("time", "speed/", "seconds/", "memory/")
"""How the names of figures begin that are another each time a step is step."""

_BESIDE = ("evaluation", "checkpoint", "profile")
"""Kinds of seconds between two steps that are not of the steps."""


@dataclass(frozen=True)
class PendingStep:
    """A step that was begun; its metrics may still be on their way from the devices.

    Attributes:
        ledger: the ledger with it.
        phase: number of its phase, from 0.
        schedule_inputs: where it stood in the budget.
        metrics: `loss`, `grad_norm`, `grad_norm/GROUP` and each term by its key, on the devices.
        fetch: brings metrics to the host.
    """

    ledger: Ledger
    phase: int
    schedule_inputs: ScheduleInputs
    metrics: Mapping[str, jax.Array]
    fetch: Callable[[Mapping[str, jax.Array]], Mapping[str, Any]] = jax.device_get

    def fetch_metrics(self, *, with_groups: bool) -> dict[str, float]:
        """Return the metrics, once the step is step.

        Args:
            with_groups: with the norms of groups, which only a record needs.
        """
        chosen = {}
        for name, metric in self.metrics.items():
            if with_groups or "/" not in name:
                chosen[name] = metric
        return {name: float(metric) for name, metric in self.fetch(chosen).items()}


class MetricsRecorder:
    """Makes the records of a run; it remembers how things stood at the last one."""

    def __init__(
        self,
        phases: Sequence[Phase],
        devices: int,
        ledger: Ledger,
        clock: Stopwatch,
        peak: Peak | None,
        clocks: Sequence[Stopwatch] = (),
    ):
        """Begin to measure.

        Args:
            phases: phases of the run.
            devices: number of devices it runs on.
            ledger: its ledger now.
            clock: its stopwatch.
            peak: peak of a device; None: not known, and records have no utilisation.
            clocks: stopwatches of all runs that share the devices, its own included; time that
                passes is shared evenly among them. Empty: its own alone.
        """
        self._phases = phases
        self._devices = devices
        self._clock = clock
        self._peak = peak
        self._clocks = clocks or (clock,)
        self._last = self._now(ledger)

    def record(self, step: PendingStep, figures: Mapping[str, float]) -> dict[str, Any]:
        """The record of a step that is done; what is per second is a mean over the steps since the
        last record."""
        ledger = step.ledger
        return {
            "flops": ledger.total,
            "share": ledger.share,
            "time": round(time.time(), 3),
            "phase": step.phase + 1,
            "learning_rate": step.schedule_inputs.learning_rate,
            **{_name(key): figure for key, figure in figures.items()},
            **self._weights(step),
            "tokens/seen": ledger.tokens,
            "tokens/unique": ledger.unique_tokens,
            "tokens/masked": ledger.masked_tokens,
            **{f"spent/{account}": flops for account, flops in ledger.spent.items()},
            **self._speed(ledger),
            **{
                f"seconds/{kind}": round(seconds, 3)
                for kind, seconds in self._clock.seconds.items()
            },
            "memory/high_water_bytes": high_water()[0],
        }

    def _weights(self, step: PendingStep) -> dict[str, float]:
        """The weights of terms that change over the budget, as they were in the step."""
        terms = self._phases[step.phase].objective.terms
        changing = {key: weight for key, weight, _ in terms if isinstance(weight, Schedule)}
        if not changing:
            return {}
        # The others are busy with the next step
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return {
                f"weight/{key}": float(value(weight, step.schedule_inputs.budget_fraction))
                for key, weight in changing.items()
            }

    def _speed(self, ledger: Ledger) -> dict[str, float]:
        before = self._last
        now = self._now(ledger)
        self._last = now
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
