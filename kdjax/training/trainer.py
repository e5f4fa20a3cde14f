"""One run: an arm under one seed, from its start, or its last checkpoint, to the end of its
budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax import process_logging
from kdjax.budget.accounting import Budget
from kdjax.budget.hardware import Peak
from kdjax.budget.ledger import Ledger
from kdjax.config import TrainConfig
from kdjax.errors import Diverged, InputError, Stopped
from kdjax.parallel import hosts
from kdjax.parallel.host_sums import BatchCounts
from kdjax.progress import Progress
from kdjax.training import records
from kdjax.training.checkpoint_policy import CheckpointPolicy
from kdjax.training.checkpoint_retry import CheckpointRetry
from kdjax.training.checkpoint_storage import CheckpointStorage
from kdjax.training.checksum import sha256
from kdjax.training.compiled_phase import CompiledPhase
from kdjax.training.input_pipeline import step_inputs
from kdjax.training.metrics import MetricsRecorder, PendingStep
from kdjax.training.outcome import Outcome
from kdjax.training.profile import Profiler
from kdjax.training.records import RunRecords
from kdjax.training.sinks import About
from kdjax.training.step import ScheduleInputs, State
from kdjax.training.stopwatch import Stopwatch


@dataclass(eq=False)
class Trainer:
    """One run, which `kdjax.training.train.train` takes to its end: `train(Trainer(...))`.

    Attributes:
        compiled_phases: the arm's phases, one after another.
        budget: budget of the run.
        start: the student's starting parameters.
        seed: seed of dropout and of the objective's projections.
        config: training settings.
        directory: directory of the run: `checkpoints/`, `metrics.jsonl`, `ledger.jsonl`, and what
            else `config.log` asks for.
        upfront: FLOPs spent before the first step, by account: the run's share of what the teacher
            cost.
        cache_bytes: size of the stored teacher outputs that it reads.
        repeats: whether text may be seen again once all of it was.
        evaluate: function that measures the student's parameters on held-out text.
        watch: function called after every step.
        phase_ended: function called after a phase's last step, before any of a later one, with the
            phase's number from 0, the student's parameters on the host and the ledger. A run that
            is resumed there calls it again.
        checkpoints: directory of the checkpoints, a path or gs://bucket/path; None: in `directory`.
        warn: function called with a line about what goes wrong and does not stop the run.
        about: names of study, arm and seed, for those who look at many runs.
        peak: peak of a device; None: not known, and utilisation is not reported.
        ledger: account of what the run has spent so far.
        clock: stopwatch of where its time went.
    """

    compiled_phases: Sequence[CompiledPhase]
    budget: Budget
    _: KW_ONLY
    start: Any
    seed: int
    config: TrainConfig
    directory: Path
    upfront: Mapping[str, int] | None = None
    cache_bytes: int = 0
    repeats: bool = True
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    watch: Callable[[Progress], None] = lambda progress: None
    phase_ended: Callable[[int, Any, Ledger], None] | None = None
    checkpoints: str | Path | None = None
    warn: Callable[[str], None] = process_logging.warn
    about: About | None = None
    peak: Peak | None = None

    def run(self) -> Outcome:
        """Train until the ledger affords no further step.

        Raises:
            As `kdjax.training.train.train`.
        """
        state = self.restore()
        self.begin([self.clock])
        policy = CheckpointPolicy(self.config.checkpoint.seconds)
        for phase_number, phase in enumerate(self.compiled_phases):
            inputs = step_inputs(
                phase.program, phase.stream, self.sequences_seen(phase_number), policy.signals
            )
            while self.affords_step(phase_number):
                with self.profiled_step():
                    # The next batch, and where in the budget its step stands
                    with self.clock("input"):
                        step_input = next(inputs)
                    self.check_fresh(phase_number, step_input.counts)
                    schedule_inputs = self.schedule_inputs(phase_number)

                    # The devices are busy with this step while the last one's metrics are reported.
                    with self.clock("compute"):
                        state, metrics = phase.program.step(
                            state, phase.teacher, step_input.batch, schedule_inputs
                        )
                        self.charge(phase_number, step_input.counts, schedule_inputs, metrics)
                        self.report()
                    self.read_clock_of_step()

                # Evaluation comes first, so a checkpoint of this step has its point of the curve.
                if self.evaluation_is_due():
                    self.measure_held_out(state)
                if step_input.signals.stop:
                    self.save_now(state)
                    raise Stopped(f"saved at step {self.ledger.steps}")
                if policy.is_due(step_input.signals):
                    self.save(state)
                    policy.saved()

            # Before any step of the next phase is taken
            self.end_phase(phase_number, state)
        return self.finish(state)

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(
            self.budget, len(self.compiled_phases), self.upfront, self.cache_bytes
        )
        self.clock = Stopwatch({})
        self._damaged: list[str] = []
        self._pending: list[PendingStep] = []
        self._ledger_before_step = self.ledger
        self._open_files = ExitStack()

    def __enter__(self) -> Trainer:
        """Open the checkpoints; leaving closes all that the run writes to, however it ended."""
        directory = self.checkpoints or hosts.shared_dir(self.directory / "checkpoints")
        settings = self.config.checkpoint
        self._storage = self._open_files.enter_context(CheckpointStorage(directory, settings.keep))
        self._saver = CheckpointRetry(self._storage, self.directory, settings.patience, self.warn)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open_files.__exit__(*error)

    def restore(self) -> State:
        """Return the state to go on from: the start's, or the newest whole checkpoint's."""
        program = self.compiled_phases[0].program
        restored = self._storage.restore(program.abstract_state())
        if restored is None:
            return program.start(self.start, self.seed)

        # The ledger, its clock, journal and metrics go back to the checkpoint's step.
        self.ledger = restored.ledger
        self.clock = Stopwatch(self.ledger.seconds)
        records.restore(self.directory, restored.records)
        self._damaged = restored.damaged
        if restored.damaged:
            damaged = "; ".join(restored.damaged)
            self.warn(f"{damaged}; going on from the one of step {self.ledger.steps}")
        state: State = restored.state
        return state

    def begin(self, clocks: Sequence[Stopwatch], *, profiles: bool = True) -> None:
        """Open all that the run writes to, and begin to measure.

        Args:
            clocks: stopwatches of all runs that share the devices from here on, this one's too;
                time that all spend together is shared evenly.
            profiles: whether this run's directory gets the profile.

        Raises:
            InputError: metrics.jsonl or the journal is damaged, or compiling takes all of the
                budget's hours.
        """
        steps = self.ledger.steps
        programs = [phase.program for phase in self.compiled_phases]
        self._runs_at_once = len(clocks)

        # The journal says what each step costs, and whether the run is resumed.
        self._records = RunRecords(self.directory, steps, self.config.log, self.about, self.warn)
        self._open_files.callback(self._records.log.close)
        self._records.begin(
            self.ledger,
            self._damaged,
            side_by_side=self._runs_at_once,
            prices=[phase.price.to_json() for phase in self.compiled_phases],
            positions=[program.shape.tokens_per_step for program in programs],
        )
        self._saver.resume(steps)
        self._evaluated_step = steps

        # Phases may share a program, which is compiled once.
        for program in dict.fromkeys(programs):
            self.clock.add("compile", program.compile_seconds / self._runs_at_once)
        self.read_clock()
        if self.ledger.used > self.budget.amount and not steps:
            raise InputError(
                f"{self.directory}: budget.hours is {self.budget.amount:g}, expected more than the "
                f"{self.ledger.used:.3g} hours that compiling took, as budget.clock counts it"
            )

        # Speed is measured from here on.
        phases = [phase.phase for phase in self.compiled_phases]
        devices = programs[0].layout.devices
        self._recorder = MetricsRecorder(
            phases, devices, self.ledger, self.clock, self.peak, clocks
        )
        profiled_steps = self.config.log.profile if profiles and hosts.is_main_process() else ()
        self._profiler = Profiler(self.directory / "profile", profiled_steps, steps, self.warn)
        self._open_files.callback(lambda: self._profiler.close(self.ledger.steps))

    def sequences_seen(self, phase_number: int) -> int:
        """Return how many sequences the run has seen, when the phase begins or goes on."""
        return self.ledger.positions // self.compiled_phases[phase_number].program.shape.seq_len

    def affords_step(self, phase_number: int) -> bool:
        """Return whether a step of the phase ends before its share of the budget."""
        phase = self.compiled_phases[phase_number]
        return self.ledger.affords(
            phase.price, phase.program.shape.tokens_per_step, phase.phase.until
        )

    def schedule_inputs(self, phase_number: int) -> ScheduleInputs:
        """Return the inputs of the phase's next step: share of the budget, learning rate."""
        phase = self.compiled_phases[phase_number]
        cost = self.ledger.step(phase.price, phase.program.shape.tokens_per_step)
        before = self.ledger.training_share
        after = before + cost / self.ledger.training_amount
        return ScheduleInputs(before, phase.phase.learning_rate(before, after))

    def check_fresh(self, phase_number: int, counts: BatchCounts) -> None:
        """Raise InputError where a step of the phase repeats text that must not repeat."""
        batch_size = self.compiled_phases[phase_number].program.shape.batch_size
        if counts.fresh < batch_size and not self.repeats:
            raise InputError(
                f"{self.directory}: step {self.ledger.steps + 1} would repeat text, expected "
                "none under data.regime 'unlimited'; add text or lower the budget"
            )

    def charge(
        self,
        phase_number: int,
        counts: BatchCounts,
        schedule_inputs: ScheduleInputs,
        metrics: Mapping[str, jax.Array],
        fetch: Callable[[Mapping[str, jax.Array]], Mapping[str, Any]] = jax.device_get,
    ) -> None:
        """Charge a step to the ledger, once the devices are at it.

        Args:
            phase_number: number of its phase.
            counts: what the run reads in it.
            schedule_inputs: where it stands in the budget.
            metrics: its metrics, on the devices.
            fetch: brings metrics to the host.
        """
        phase = self.compiled_phases[phase_number]
        self._ledger_before_step = self.ledger
        self.ledger = self.ledger.charge(
            phase_number,
            phase.price,
            phase.program.shape.tokens_per_step,
            int(counts.tokens),
            int(counts.unique),
            int(counts.masked),
        )
        self._pending.append(
            PendingStep(self.ledger, phase_number, schedule_inputs, metrics, fetch)
        )

    def report(self, *, steps_ahead: int | None = None) -> None:
        """Hand out the metrics of the steps done.

        Args:
            steps_ahead: number of the latest steps whose metrics are left for later, so that the
                devices never wait. None: 1, or 0 under a budget of hours, which waits for each
                step before it looks at the clock.

        Raises:
            Diverged: a loss is not finite.
        """
        if steps_ahead is None:
            steps_ahead = int(self.budget.countable)
        while len(self._pending) > steps_ahead:
            step = self._pending.pop(0)
            step_number = step.ledger.steps
            is_recorded = step_number % self.config.log.every == 0
            # Waits for the step, if the devices are still at it
            values = step.fetch_metrics(with_groups=is_recorded)
            if not np.isfinite(values["loss"]):
                raise Diverged(
                    f"{self.directory}: the loss is {values['loss']} at step {step_number}, "
                    "expected a finite one; lower the optimizer's learning_rate or set its clip"
                )
            self.watch(Progress(step.ledger, values))
            if is_recorded:
                self._records.log.write(step_number, self._recorder.record(step, values))

    def read_clock_of_step(self) -> None:
        """Put the seconds of a step on the ledger: a budget of hours affords by the last one."""
        self.read_clock()
        seconds = self.ledger.counted_seconds - self._ledger_before_step.counted_seconds
        self.ledger = replace(self.ledger, step_seconds=seconds)

    def read_clock(self) -> None:
        """Put the seconds that have passed on the ledger."""
        seconds = self.clock.seconds
        if not self.budget.countable:
            # The clock decides then, and each process has its own.
            seconds = hosts.broadcast_from_main(seconds)
        self.ledger = replace(self.ledger, seconds=seconds)

    def finish_pending(self) -> None:
        """Wait for the last step, and hand out its metrics."""
        if self._pending:
            with self.clock("compute"):
                self.report(steps_ahead=0)
            self.read_clock()

    def profiled_step(self) -> AbstractContextManager[None]:
        """Return a block in which the next step is captured, if the settings name it."""
        return self._profiler.capture(self.ledger.steps + 1, self.finish_pending, self.clock)

    def evaluation_is_due(self) -> bool:
        """Return whether the last step reached one of the evenly spaced evaluations."""
        evaluations = self.config.evaluations

        def reached(ledger: Ledger) -> int:
            return math.floor(ledger.share * evaluations + 1e-9)

        return reached(self.ledger) > reached(self._ledger_before_step)

    def measure_held_out(self, state: State) -> None:
        """Measure the student on held-out text, unless that was done after this very step."""
        self.finish_pending()
        if self.evaluate is None or self._evaluated_step == self.ledger.steps:
            return
        with self.clock("evaluation"):
            figures = self.evaluate(hosts.to_host(state.params["model"]))
        point = {"flops": self.ledger.total, "share": self.ledger.share, **figures}
        self._records.log.write(self.ledger.steps, point)
        self._evaluated_step = self.ledger.steps
        self.read_clock()

    def end_phase(self, phase_number: int, state: State) -> None:
        """Call `phase_ended` for the phase, unless the run is in a later one already."""
        if self.phase_ended is None or any(self.ledger.phases[phase_number + 1 :]):
            return
        self.finish_pending()
        self.phase_ended(phase_number, hosts.to_host(state.params["model"]), self.ledger)

    def save(self, state: State) -> None:
        """Begin a checkpoint (`CheckpointRetry.save`)."""
        self.finish_pending()
        with self.clock("checkpoint"):
            self._saver.save(state, self.ledger, self._records)
        self.read_clock()

    def save_now(self, state: State) -> None:
        """Write a checkpoint now or never: the process was told to stop.

        Raises:
            InputError: it cannot be written.
        """
        self._saver.patience = 0.0
        self.save(state)
        self._saver.commit(self.ledger)

    def finish(self, state: State) -> Outcome:
        """Write the last figures and the last checkpoint, and return what the run came to."""
        self.measure_held_out(state)

        # Nothing is spent any more, so the last checkpoint is waited for.
        self.save(state)
        while not self._saver.commit(self.ledger):
            self._saver.wait()
            self.save(state)
        params = hosts.to_host(state.params["model"])
        params_sha256 = sha256(params)
        return Outcome(
            params,
            self.ledger,
            self._records.log.curve(),
            params_sha256,
            self._records.finish(self.ledger, params_sha256),
            self._runs_at_once,
        )
