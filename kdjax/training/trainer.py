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
from kdjax.parallel.host_sums import BatchCounts
from kdjax.storage.typed_json import to_plain
from kdjax.training.checkpoints.retry import CheckpointRetry
from kdjax.training.checksum import sha256
from kdjax.training.input_pipeline import StepInput, step_inputs
from kdjax.training.loop import TrainingLoop
from kdjax.training.milestones import Milestones
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
        account: what it has spent so far, and where its time went.
    """

    def __init__(
        self,
        restored: RestoredRun,
        stopwatch: Stopwatch,
        stopwatches: Sequence[Stopwatch] = (),
        *,
        profiles: bool = True,
    ):
        """Open all that the run writes to, and begin to measure.

        Args:
            restored: the run at the step it goes on from.
            stopwatch: its stopwatch, with the seconds of its ledger.
            stopwatches: those of all runs that share the devices from here on, this one's too; time
                that all spend together is shared evenly. Empty: it has the devices alone.
            profiles: whether this run's directory gets the profile.

        Raises:
            InputError: metrics.jsonl or the journal is damaged, or compiling takes all of the
                budget's hours.
        """
        spec = restored.spec
        super().__init__(len(spec.compiled_phases), spec.config.checkpoint.seconds)
        stopwatches = stopwatches or (stopwatch,)
        self.spec = spec
        self.account = RunAccount(spec, restored.ledger, stopwatch)
        self._milestones = Milestones(spec, self.account)
        self._evaluated_step = self.steps
        self._lanes = len(stopwatches)
        programs = [compiled.program for compiled in spec.compiled_phases]

        with ExitStack() as open_files:
            # The journal says what each step costs, and whether the run is resumed.
            log = spec.config.log
            self._records = RunRecords(spec.directory, self.steps, log, spec.about, spec.warn)
            open_files.callback(self._records.log.close)
            self._records.begin(
                restored.ledger,
                restored.damaged,
                restored.branch,
                side_by_side=self._lanes,
                prices=[to_plain(compiled.price) for compiled in spec.compiled_phases],
                positions=[program.batch_shape.tokens_per_step for program in programs],
            )
            patience = spec.config.checkpoint.patience
            self._saver = CheckpointRetry(restored.storage, spec.directory, patience, spec.warn)
            self._saver.resume(self.steps)

            # Speed is measured from here on.
            self.account.charge_compiling(programs, self._lanes)
            self._reporter = StepReporter(
                spec, self._records.log, self.account.ledger, stopwatch, stopwatches
            )
            profiled_steps: tuple[int, ...] = ()
            if profiles and hosts.is_main_process():
                profiled_steps = log.profile
            profile_dir = spec.directory / "profile"
            self._profiler = Profiler(profile_dir, profiled_steps, self.steps, spec.warn)
            open_files.callback(lambda: self._profiler.close(self.steps))
            self._open_files = open_files.pop_all()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open_files.__exit__(*error)

    @property
    @override
    def steps(self) -> int:
        return self.account.ledger.steps

    @override
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        compiled = self.spec.compiled_phases[phase_number]
        sequences_seen = self.account.sequences_seen(phase_number)
        return step_inputs(compiled.program, compiled.stream, sequences_seen, self.policy.signals)

    @override
    def affords_step(self, phase_number: int) -> bool:
        return self.account.affords_step(phase_number)

    @override
    def profiled_step(self) -> AbstractContextManager[None]:
        return self.capture_step(self.finish_pending)

    def capture_step(self, wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a block in which the next step is captured, if the settings name it.

        Args:
            wait: function that waits until the devices have done all steps before.
        """
        return self._profiler.capture(self.steps + 1, wait, self.account.stopwatch)

    @override
    def next_input(self, inputs: Iterator[StepInput]) -> StepInput:
        with self.account.stopwatch.measure("input"):
            return next(inputs)

    @override
    def take_step(self, phase_number: int, step_input: StepInput, state: State) -> State:
        compiled = self.spec.compiled_phases[phase_number]
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
        return state

    def charge_and_queue(
        self,
        phase_number: int,
        counts: BatchCounts,
        schedule_inputs: ScheduleInputs,
        metrics: Mapping[str, jax.Array],
        fetch: Callable[[Mapping[str, jax.Array]], Mapping[str, Any]] = jax.device_get,
    ) -> None:
        """Charge a step to the ledger, once the devices are at it, and queue it to be reported.

        Args:
            phase_number: number of its phase.
            counts: what the run reads in it.
            schedule_inputs: where it stands in the budget.
            metrics: its metrics, on the devices.
            fetch: function that brings metrics to the host.
        """
        self.account.charge_step(phase_number, counts)
        pending = PendingStep(self.account.ledger, phase_number, schedule_inputs, metrics, fetch)
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
    def evaluation_is_due(self) -> bool:
        return self._milestones.evaluation_reached()

    @override
    def measure_held_out(self, state: State) -> None:
        on_own_curve = self._milestones.own_evaluation_reached()
        self._measure_held_out(state, on_own_curve=on_own_curve)

    def _measure_held_out(self, state: State, *, on_own_curve: bool) -> None:
        """Measure the student on held-out text, unless that was done after this very step.

        Args:
            state: state after the step.
            on_own_curve: whether the point is of this run's curve, or of a larger budget's alone.
        """
        self.finish_pending()
        if self.spec.evaluate is None or self._evaluated_step == self.steps:
            return
        # What the run had spent before it was measured
        ledger = self.account.ledger
        with self.account.timed("evaluation"):
            figures = dict(self.spec.evaluate(hosts.to_host(state.params["model"])))
        if on_own_curve:
            self._evaluated_step = self.steps
        else:
            figures = trunk_figures(figures)
        point = {"flops": ledger.charged_flops, "share": ledger.share, **figures}
        self._records.log.write(self.steps, point)

    @override
    def snapshot_is_due(self) -> bool:
        return bool(self._milestones.words_reached())

    @override
    def keep_snapshot(self, state: State) -> None:
        # A step whose loss is not finite is found first: it leaves no snapshot.
        self.finish_pending()
        if self.spec.snapshots is None:
            return
        with self.account.timed("checkpoint"):
            params = hosts.to_host(state.params["model"])
            for words in self._milestones.words_reached():
                self.spec.snapshots.keep(words, params, self.account.ledger)

    @override
    def trunk_ends(self) -> bool:
        return self._milestones.trunk_end_reached()

    @override
    def keep_trunk(self, state: State) -> None:
        self.finish_pending()
        if self.spec.trunk is None:
            return
        with self.account.timed("checkpoint"):
            self._records.keep_trunk(self.account.ledger)
            self.spec.trunk.keep(state, self.account.ledger, self._records.read())

    @override
    def save(self, state: State) -> None:
        self._save(state)

    @override
    def save_now(self, state: State) -> None:
        self._save(state, patience=0.0)
        self._saver.wait_until_saved(self.account.ledger, patience=0.0)

    def _save(self, state: State, patience: float | None = None) -> None:
        """Begin a checkpoint, with the patience of `CheckpointRetry.save`."""
        self.finish_pending()
        with self.account.timed("checkpoint"):
            self._saver.save(state, self.account.ledger, self._records, patience)

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
        self._measure_held_out(state, on_own_curve=True)

        # Nothing is spent any more, so the last checkpoint is waited for.
        self.save(state)
        while not self._saver.wait_until_saved(self.account.ledger):
            self._saver.sleep_before_retry()
            self.save(state)
        params = hosts.to_host(state.params["model"])
        params_sha256 = sha256(params)
        return Outcome(
            params=params,
            ledger=self.account.ledger,
            curve=self._records.log.curve(),
            params_sha256=params_sha256,
            journal_sha256=self._records.finish(self.account.ledger, params_sha256),
            side_by_side=self._lanes,
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
            side_by_side=self._lanes,
            diverged=str(error),
            shared=self._records.shared(),
        )
