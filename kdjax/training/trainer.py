"""One run: an arm under one seed, from its start, or its last checkpoint, to the end of its
budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import jax
from typing_extensions import override

from kdjax.errors import Diverged
from kdjax.parallel import hosts
from kdjax.parallel.host_sums import BatchCounts, HostSignals
from kdjax.storage.typed_json import to_plain
from kdjax.training.checkpoints.retry import CheckpointRetry
from kdjax.training.checksum import sha256
from kdjax.training.due_work import DueWork, due_work
from kdjax.training.input_pipeline import StepInput, step_inputs
from kdjax.training.lanes import Lane
from kdjax.training.loop import TrainingLoop
from kdjax.training.outcome import Outcome
from kdjax.training.profile import Profiler
from kdjax.training.records.run_records import RunRecords
from kdjax.training.records.step_metrics import PendingStep
from kdjax.training.run_account import RunAccount
from kdjax.training.run_spec import RestoredRun
from kdjax.training.step import ScheduleInputs, State
from kdjax.training.step_reporter import DivergedStep, StepReporter
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.trunk import trunk_figures


class Trainer(TrainingLoop):
    """One run, open to be trained; as a context manager it closes all that the run writes to.

    Attributes:
        spec: what the run is made of.
        lane: place among the runs that train at once; None: it trains alone.
    """

    def __init__(self, restored: RestoredRun, stopwatch: Stopwatch, lane: Lane | None = None):
        """Open all that the run writes to, and begin to measure.

        Args:
            restored: the run at the step it goes on from.
            stopwatch: its stopwatch, with the seconds of its ledger.
            lane: place among the runs that train at once; None: it trains alone.

        Raises:
            InputError: metrics.jsonl or the journal is damaged, or compiling takes all of the
                budget's hours.
        """
        spec = restored.spec
        super().__init__(len(spec.compiled_phases), spec.config.checkpoint.seconds)
        self.spec = spec
        self.lane = lane
        self._account = RunAccount(spec, restored.ledger, stopwatch)
        # The last evaluation of the budget may be due after the very step that training ends with,
        # and a run that goes on has the point of its checkpoint's step already: none is measured
        # twice.
        self._evaluated_step = self._account.ledger.steps

        stopwatches: Sequence[Stopwatch] = (stopwatch,)
        if lane is not None:
            stopwatches = lane.stopwatches
        self._side_by_side = len(stopwatches)

        # If one of these raises, those opened before it are closed.
        with ExitStack() as open_files:
            # The journal says what each step costs, and whether the run is resumed.
            self._records = self._open_records(restored, open_files)

            # The step it goes on from needs no checkpoint.
            patience = spec.config.checkpoint.patience
            self._saver = CheckpointRetry(restored.storage, spec.directory, patience, spec.warn)
            self._saver.resume(self._account.ledger.steps)

            # Speed is measured once compiling is on the ledger.
            programs = [compiled.program for compiled in spec.compiled_phases]
            self._account.charge_compiling(programs, self._side_by_side)
            self._reporter = StepReporter(
                spec, self._records.log, self._account.ledger, stopwatch, stopwatches
            )

            # The profile ends with the run, if the steps that it is of have not.
            self._profiler = self._new_profiler()
            open_files.callback(lambda: self._profiler.close(self._account.ledger.steps))
            self._open_files = open_files.pop_all()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open_files.__exit__(*error)

    def _open_records(self, restored: RestoredRun, open_files: ExitStack) -> RunRecords:
        """Open the run's metrics and its journal, and write how it begins or goes on.

        Args:
            restored: the run at the step it goes on from.
            open_files: what closes the records at the end.
        """
        spec = self.spec
        steps = restored.ledger.steps
        records = RunRecords(spec.directory, steps, spec.config.log, spec.about, spec.warn)
        open_files.callback(records.log.close)
        prices = [to_plain(compiled.price) for compiled in spec.compiled_phases]
        batch_shapes = [compiled.program.batch_shape for compiled in spec.compiled_phases]
        records.begin(
            restored.ledger,
            restored.damaged,
            restored.branch,
            side_by_side=self._side_by_side,
            prices=prices,
            positions=[batch_shape.tokens_per_step for batch_shape in batch_shapes],
        )
        return records

    def _new_profiler(self) -> Profiler:
        """Make the profiler of the steps that the settings name: of none where another process or
        another lane has it."""
        has_profile = self.lane is None or self.lane.has_profile
        profiled_steps: tuple[int, ...] = ()
        if has_profile and hosts.is_main_process():
            profiled_steps = self.spec.config.log.profile
        profile_dir = self.spec.directory / "profile"
        return Profiler(profile_dir, profiled_steps, self._account.ledger.steps, self.spec.warn)

    @property
    @override
    def account(self) -> RunAccount:
        return self._account

    @override
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        compiled = self.spec.compiled_phases[phase_number]
        sequences_seen = self.account.sequences_seen(phase_number)
        return step_inputs(compiled.program, compiled.stream, sequences_seen, self.policy.signals)

    @override
    def take_step(
        self, phase_number: int, inputs: Iterator[StepInput], state: State
    ) -> tuple[State, HostSignals]:
        compiled = self.spec.compiled_phases[phase_number]
        with self.capture_step(self.finish_pending):
            with self.account.stopwatch.measure("input"):
                step_input = next(inputs)
            self.account.refuse_repeated_text(phase_number, step_input.counts)
            schedule_inputs = self.account.schedule_inputs(phase_number)

            # The devices are busy with this step while the last one's metrics are reported.
            with self.account.stopwatch.measure("compute"):
                state, metrics = compiled.program.step(
                    state, compiled.teacher_params, step_input.batch, schedule_inputs
                )
                self.charge_and_queue(phase_number, step_input.counts, schedule_inputs, metrics)
                self.report()
            self.account.read_stopwatch_of_step()
        return state, step_input.signals

    def capture_step(self, wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a block in which the next step is captured, if the settings name it.

        Args:
            wait: function that waits until the devices have done all steps before.
        """
        next_step = self.account.ledger.steps + 1
        return self._profiler.capture(next_step, wait, self.account.stopwatch)

    def charge_and_queue(
        self,
        phase_number: int,
        counts: BatchCounts,
        schedule_inputs: ScheduleInputs,
        metrics: Mapping[str, jax.Array],
    ) -> None:
        """Charge a step to the ledger, once the devices are at it, and queue it to be reported.

        Args:
            phase_number: number of its phase.
            counts: what the run reads in it.
            schedule_inputs: where it stands in the budget.
            metrics: its metrics, on the devices; those of all lanes, where the run has one.
        """
        self.account.charge_step(phase_number, counts)
        lane = None if self.lane is None else self.lane.number
        pending = PendingStep(self.account.ledger, phase_number, schedule_inputs, metrics, lane)
        self._reporter.add(pending)

    def report(self, *, last_too: bool = False) -> None:
        """Report the steps done: metrics to the function that watches the run, records to its log.

        Args:
            last_too: whether to wait for the last step, too. It is left for later where the devices
                would wait meanwhile; a budget of hours waits for each step in any case, before it
                looks at the clock.

        Raises:
            Diverged: a loss is not finite.
        """
        if last_too or not self.spec.budget.countable:
            self._reporter.report(steps_ahead=0)
        else:
            self._reporter.report(steps_ahead=1)

    def finish_pending(self) -> None:
        """Wait for the last step, and report it.

        Raises:
            Diverged: its loss is not finite.
        """
        if self._reporter.has_pending:
            with self.account.timed("compute"):
                self.report(last_too=True)

    @override
    def due_work(self) -> DueWork:
        return due_work(self.spec, self.account)

    @override
    def measure_held_out(self, state: State) -> None:
        # A point that is due for a larger budget alone is none of this run's curve.
        self._write_point(state, on_own_curve=self.due_work().own_evaluation)

    def _write_point(self, state: State, *, on_own_curve: bool) -> None:
        """Measure the student on held-out text, unless that was done after this very step.

        Args:
            state: state after the step.
            on_own_curve: whether the point is of this run's curve, or of a larger budget's alone.
        """
        self.finish_pending()
        if self.spec.evaluate is None or self._evaluated_step == self.account.ledger.steps:
            return
        # What the run had spent before it was measured
        ledger = self.account.ledger
        with self.account.timed("evaluation"):
            figures = dict(self.spec.evaluate(hosts.to_host(state.params["model"])))
        if on_own_curve:
            self._evaluated_step = ledger.steps
        else:
            figures = trunk_figures(figures)
        point = {"flops": ledger.charged_flops, "share": ledger.share, **figures}
        self._records.log.write(ledger.steps, point)

    @override
    def keep_snapshots(self, state: State) -> None:
        # A step whose loss is not finite is found first: it leaves no snapshot.
        self.finish_pending()
        snapshot_words = self.due_work().snapshot_words
        if self.spec.snapshots is None or not snapshot_words:
            return
        with self.account.timed("checkpoint"):
            params = hosts.to_host(state.params["model"])
            for words in snapshot_words:
                self.spec.snapshots.keep(words, params, self.account.ledger)

    @override
    def keep_trunk(self, state: State) -> None:
        self.finish_pending()
        if self.spec.trunk is None:
            return
        with self.account.timed("checkpoint"):
            self._records.keep_trunk(self.account.ledger)
            self.spec.trunk.keep(state, self.account.ledger, self._records.read())

    @override
    def begin_checkpoint(self, state: State, patience: float | None = None) -> None:
        self.finish_pending()
        with self.account.timed("checkpoint"):
            self._saver.save(state, self.account.ledger, self._records, patience)

    @override
    def write_checkpoint(self, state: State) -> None:
        self.begin_checkpoint(state, patience=0.0)
        self._saver.wait_until_saved(self.account.ledger, patience=0.0)

    @override
    def end_phase(self, phase_number: int, state: State) -> None:
        if self.spec.phase_ended is None:
            return
        later_steps = self.account.ledger.steps_by_phase[phase_number + 1 :]
        if not any(later_steps):
            self.finish_pending()
            params = hosts.to_host(state.params["model"])
            self.spec.phase_ended(phase_number, params, self.account.ledger)

    def finish(self, state: State) -> Outcome:
        """Write the last figures and the last checkpoint, and return what the run came to."""
        self._write_point(state, on_own_curve=True)

        # Nothing is spent any more, so the last checkpoint is waited for.
        self.begin_checkpoint(state)
        while not self._saver.wait_until_saved(self.account.ledger):
            self._saver.sleep_before_retry()
            self.begin_checkpoint(state)
        params = hosts.to_host(state.params["model"])
        params_sha256 = sha256(params)
        return Outcome(
            params=params,
            ledger=self.account.ledger,
            curve=self._records.log.curve(),
            params_sha256=params_sha256,
            journal_sha256=self._records.finish(self.account.ledger, params_sha256),
            side_by_side=self._side_by_side,
            shared=self._records.shared(),
        )

    def abandon(self, error: Diverged) -> Outcome:
        """End the run that has diverged, and return what it came to until then.

        Its last checkpoint stays as it is: the same seed diverges again from there.
        """
        ledger = self.account.ledger
        if isinstance(error, DivergedStep):
            # The step after it may have begun by then: whether it had depends on the clock.
            ledger = replace(error.ledger, seconds=ledger.seconds)
        return Outcome(
            params=None,
            ledger=ledger,
            curve=self._records.log.curve(),
            params_sha256=None,
            journal_sha256=self._records.diverged(ledger, str(error)),
            side_by_side=self._side_by_side,
            diverged=str(error),
            shared=self._records.shared(),
        )
