"""The record of a step: every figure of it, by name, for `metrics.jsonl`, TensorBoard and trackers
alike.

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

from kdjax.budget.hardware import Peak, peak_memory, utilisation
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import PARTS
from kdjax.config import Schedule
from kdjax.data.mask_rate import MaskRate
from kdjax.objectives.schedule import schedule_value
from kdjax.training.phase import Phase
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch

MEASURED = ("time", "speed/", "seconds/", "memory/")
"""Prefixes of the figures that differ each time a step is done."""

_NOT_OF_STEPS = ("evaluation", "checkpoint", "profile")
"""Kinds of seconds between two steps that do not count as theirs."""


@dataclass(frozen=True)
class PendingStep:
    """A step that was begun; its metrics may still be on their way from the devices.

    Attributes:
        ledger: the ledger with it.
        phase: number of its phase, from 0.
        schedule_inputs: place of the step in the budget.
        metrics: `loss`, `grad_norm`, `grad_norm/GROUP` and each term by its key, on the devices:
            scalars, or `[lanes]`.
        lane: lane of the run whose step it is; None: it trains alone.
    """

    ledger: Ledger
    phase: int
    schedule_inputs: ScheduleInputs
    metrics: Mapping[str, jax.Array]
    lane: int | None = None

    def fetch_metrics(self, *, with_groups: bool) -> dict[str, float]:
        """Return the metrics, once the step is done.

        Args:
            with_groups: whether to include the norms of groups, which only a record needs.
        """
        chosen = {}
        for name, metric in self.metrics.items():
            if with_groups or "/" not in name:
                chosen[name] = metric
        figures = {}
        for name, metric in jax.device_get(chosen).items():
            figures[name] = float(metric if self.lane is None else metric[self.lane])
        return figures


class MetricsRecorder:
    """Makes the records of a run, each with the speed since the last one."""

    def __init__(
        self,
        phases: Sequence[Phase],
        devices: int,
        ledger: Ledger,
        stopwatch: Stopwatch,
        peak: Peak | None,
        stopwatches: Sequence[Stopwatch] = (),
        *,
        mask_rate: MaskRate | None = None,
        perf_counter: Callable[[], float] = time.perf_counter,
    ):
        """Begin to measure.

        Args:
            phases: phases of the run.
            devices: number of devices it runs on.
            ledger: ledger of the run as it is now.
            stopwatch: stopwatch of the run.
            peak: peak of a device; None: not known, and records have no utilisation.
            stopwatches: stopwatches of all runs that share the devices, its own included; time that
                passes is shared evenly among them. Empty: its own alone.
            mask_rate: masking rate that changes over the budget; None: records have none.
            perf_counter: function that returns the seconds since some moment.
        """
        self._phases = phases
        self._devices = devices
        self._stopwatch = stopwatch
        self._peak = peak
        self._stopwatches = stopwatches or (stopwatch,)
        self._perf_counter = perf_counter
        self._mask_rate = mask_rate
        self._last = self._now(ledger)

    def record(self, step: PendingStep, figures: Mapping[str, float]) -> dict[str, Any]:
        """Build the record of a done step; rates are means over the steps since the last record.

        Args:
            step: step that is done, with the ledger after it.
            figures: metrics of the step, from `fetch_metrics`.
        """
        ledger = step.ledger
        record: dict[str, Any] = {
            "flops": ledger.charged_flops,
            "share": ledger.share,
            "time": round(time.time(), 3),
            "phase": step.phase + 1,
            "learning_rate": step.schedule_inputs.learning_rate,
        }
        for key, figure in figures.items():
            record[_name(key)] = figure
        record |= self._weights(step)
        if self._mask_rate is not None:
            fraction = float(step.schedule_inputs.budget_fraction)
            record["mlm_probability"] = self._mask_rate.at_fraction(fraction)
        record["tokens/seen"] = ledger.tokens
        record["tokens/unique"] = ledger.unique_tokens
        record["tokens/masked"] = ledger.masked_tokens
        for account, flops in ledger.spent.items():
            record[f"spent/{account}"] = flops
        record |= self._speed(ledger)
        for kind, seconds in self._stopwatch.seconds.items():
            record[f"seconds/{kind}"] = round(seconds, 3)
        record["memory/high_water_bytes"] = peak_memory()[0]
        return record

    def _weights(self, step: PendingStep) -> dict[str, float]:
        """Return the weights of terms that change over the budget, as they were in a step."""
        terms = self._phases[step.phase].objective.terms
        schedules = {key: weight for key, weight, _ in terms if isinstance(weight, Schedule)}
        if not schedules:
            return {}
        weights = {}
        # On the host: the devices are busy with the next step.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            for key, schedule in schedules.items():
                weight = schedule_value(schedule, step.schedule_inputs.budget_fraction)
                weights[f"weight/{key}"] = float(weight)
        return weights

    def _speed(self, ledger: Ledger) -> dict[str, float]:
        """Return step time, tokens per second, input wait and utilisation since the last record."""
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

    def _now(self, ledger: Ledger) -> _Snapshot:
        """Return the steps, tokens, FLOPs and seconds of the run so far."""
        not_of_steps = 0.0
        for stopwatch in self._stopwatches:
            seconds = stopwatch.seconds
            not_of_steps += sum(seconds.get(kind, 0.0) for kind in _NOT_OF_STEPS)
        return _Snapshot(
            ledger.steps,
            ledger.tokens,
            sum(ledger.spent[part] for part in PARTS),
            (self._perf_counter() - not_of_steps) / len(self._stopwatches),
            self._stopwatch.seconds.get("input", 0.0),
        )


@dataclass(frozen=True)
class _Snapshot:
    """The steps, tokens, FLOPs and seconds of a run so far.

    Attributes:
        steps: number of steps done.
        tokens: tokens seen, padding not counted.
        flops: model FLOPs of these steps.
        seconds: seconds that steps took, from some moment on.
        input: seconds spent on input.
    """

    steps: int
    tokens: int
    flops: int
    seconds: float
    input: float


def _name(key: str) -> str:
    """Return a record's name of a step's metric: a term's loss is a part of `loss`."""
    if key in ("loss", "grad_norm") or "/" in key:
        return key
    return f"loss/{key}"
