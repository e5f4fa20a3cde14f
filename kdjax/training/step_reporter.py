"""What a run says of its steps, once the devices are done with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdjax.budget.ledger import Ledger
from kdjax.errors import Diverged
from kdjax.progress import Progress
from kdjax.training.records.metrics_log import Log
from kdjax.training.records.step_metrics import MetricsRecorder, PendingStep
from kdjax.training.run_spec import RunSpec
from kdjax.training.stopwatch import Stopwatch


class DivergedStep(Diverged):
    """A step whose loss is not finite.

    Attributes:
        ledger: the run's ledger with that step.
    """

    def __init__(self, message: str, ledger: Ledger):
        super().__init__(message)
        self.ledger = ledger


class StepReporter:
    """Reports steps in their order, to the function that watches the run and to its log."""

    def __init__(
        self,
        spec: RunSpec,
        log: Log,
        ledger: Ledger,
        stopwatch: Stopwatch,
        stopwatches: Sequence[Stopwatch],
    ):
        """Begin to measure the run's speed.

        Args:
            spec: what the run is made of.
            log: log that the metrics go to.
            ledger: what the run has spent so far.
            stopwatch: stopwatch of the run.
            stopwatches: stopwatches of all runs that share the devices, this one included.
        """
        self._spec = spec
        self._log = log
        phases = [compiled.phase for compiled in spec.compiled_phases]
        devices = spec.compiled_phases[0].program.layout.device_count
        self._recorder = MetricsRecorder(
            phases, devices, ledger, stopwatch, spec.peak, stopwatches, mask_rate=spec.mask_rate
        )
        self._pending: list[PendingStep] = []

    @property
    def has_pending(self) -> bool:
        """Return whether a step was begun that is not reported yet."""
        return bool(self._pending)

    def add(self, step: PendingStep) -> None:
        """Add a step that was begun to those to be reported."""
        self._pending.append(step)

    def report(self, *, steps_ahead: int) -> None:
        """Wait for the steps that were begun, and report each.

        Args:
            steps_ahead: number of the latest steps that are left for later.

        Raises:
            DivergedStep: a loss is not finite.
        """
        while len(self._pending) > steps_ahead:
            step = self._pending.pop(0)
            step_number = step.ledger.steps
            is_recorded = step_number % self._spec.config.log.every == 0
            # Waits for the step, if the devices are still at it
            values = step.fetch_metrics(with_groups=is_recorded)
            if not math.isfinite(values["loss"]):
                raise DivergedStep(
                    f"{self._spec.directory}: the loss is {values['loss']} at step {step_number}, "
                    "expected a finite one; lower the optimizer's learning_rate or set its clip",
                    step.ledger,
                )
            self._spec.watch(Progress(step.ledger, values))
            if is_recorded:
                self._log.write(step_number, self._recorder.record(step, values))
