"""One run: an arm under one seed, from its start, or its last checkpoint, to the end of its
budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import jax
from typing_extensions import override

from kdjax.budget.ledger import Ledger
from kdjax.errors import Diverged, InputError
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
from kdjax.training.program import Program
from kdjax.training.records.run_records import RunRecords
from kdjax.training.records.step_metrics import PendingStep
from kdjax.training.run_spec import RestoredRun
from kdjax.training.step import ScheduleInputs, State
from kdjax.training.step_reporter import DivergedStep, StepReporter
from kdjax.training.stopwatch import Stopwatch
from kdjax.training.trunk import of_trunk


class Trainer(TrainingLoop):
    """One run, open to be trained; as a context manager it closes all that the run writes to.

    Attributes:
        spec: what the run is made of.
        ledger: account of what the run has spent so far.
        stopwatch: stopwatch of where its time went.
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
        self.ledger: Ledger = restored.ledger
        self.stopwatch = stopwatch
        self._ledger_before_step = self.ledger
        self._milestones = Milestones(spec)
        self._evaluated_step = self.steps
        self._lanes = len(stopwatches)
        programs = [compiled.program for compiled in spec.compiled_phases]

        with ExitStack() as open_files:
            # The journal says what each step costs, and whether the run is resumed.
            log = spec.config.log
            self._records = RunRecords(spec.directory, self.steps, log, spec.about, spec.warn)
            open_files.callback(self._records.log.close)
            self._records.begin(
                self.ledger,
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
            self._charge_compiling(programs)
            self._reporter = StepReporter(
                spec, self._records.log, self.ledger, stopwatch, stopwatches
            )
            profiled_steps = log.profile if profiles and hosts.is_main_process() else ()
            profile_dir = spec.directory / "profile"
            self._profiler = Profiler(profile_dir, profiled_steps, self.steps, spec.warn)
            open_files.callback(lambda: self._profiler.close(self.steps))
            self._open_files = open_files.pop_all()

    def _charge_compiling(self, programs: Sequence[Program]) -> None:
        """Put the seconds that compiling took on the ledger.

        Raises:
            InputError: they are all of the budget's hours.
        """
        # Phases may share a program, which is compiled once.
        for program in dict.fromkeys(programs):
            self.stopwatch.add("compile", program.compile_seconds / self._lanes)
        self.read_stopwatch()
        budget = self.spec.budget
        if self.ledger.used > budget.amount and not self.steps:
            raise InputError(
                f"{self.spec.directory}: budget.hours is {budget.amount:g}, expected more than the "
                f"{self.ledger.used:.3g} hours that compiling took, as budget.clock counts it"
            )

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open_files.__exit__(*error)

    @property
    @override
    def steps(self) -> int:
        return self.ledger.steps

    def sequences_seen(self, phase_number: int) -> int:
        """Return the number of sequences the run has seen, when the phase begins or goes on."""
        # All phases have sequences of one length, padding included.
        batch_shape = self.spec.compiled_phases[phase_number].program.batch_shape
        return self.ledger.padded_tokens // batch_shape.seq_len

    @override
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        compiled = self.spec.compiled_phases[phase_number]
        sequences_seen = self.sequences_seen(phase_number)
        return step_inputs(compiled.program, compiled.stream, sequences_seen, self.policy.signals)

    @override
    def affords_step(self, phase_number: int) -> bool:
        compiled = self.spec.compiled_phases[phase_number]
        return self.ledger.affords(
            compiled.price, compiled.program.batch_shape.tokens_per_step, compiled.phase.until
        )

    @override
    def profiled_step(self) -> AbstractContextManager[None]:
        return self.capture_step(self.finish_pending)

    def capture_step(self, wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a block in which the next step is captured, if the settings name it.

        Args:
            wait: function that waits until the devices have done all steps before.
        """
        return self._profiler.capture(self.steps + 1, wait, self.stopwatch)

    @override
    def next_input(self, inputs: Iterator[StepInput]) -> StepInput:
        with self.stopwatch("input"):
            return next(inputs)

    @override
    def take_step(self, phase_number: int, step_input: StepInput, state: State) -> State:
        compiled = self.spec.compiled_phases[phase_number]
        self.refuse_repeated_text(phase_number, step_input.counts)
        schedule_inputs = self.schedule_inputs(phase_number)

        # The devices are busy with this step while the last one's metrics are reported.
        with self.stopwatch("compute"):
            state, metrics = compiled.program.step(
                state, compiled.teacher, step_input.batch, schedule_inputs
            )
            self.charge_and_queue(phase_number, step_input.counts, schedule_inputs, metrics)
            self.report()
        self.read_stopwatch_of_step()
        return state

    def refuse_repeated_text(self, phase_number: int, counts: BatchCounts) -> None:
        """Raise InputError where a step of the phase would repeat text that must not repeat."""
        batch_size = self.spec.compiled_phases[phase_number].program.batch_shape.batch_size
        if counts.fresh < batch_size and not self.spec.repeats:
            raise InputError(
                f"{self.spec.directory}: step {self.steps + 1} would repeat text, expected none "
                "under data.regime 'unlimited'; add text or lower the budget"
            )

    def schedule_inputs(self, phase_number: int) -> ScheduleInputs:
        """Return the inputs of the phase's next step: share of the budget, learning rate."""
        compiled = self.spec.compiled_phases[phase_number]
        cost = self.ledger.step_cost(compiled.price, compiled.program.batch_shape.tokens_per_step)
        before = self.ledger.training_share
        after = before + cost / self.ledger.training_amount
        used = self.ledger.training_used + cost
        return ScheduleInputs(before, compiled.phase.learning_rate(before, after, used))

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
        compiled = self.spec.compiled_phases[phase_number]
        self._ledger_before_step = self.ledger
        self.ledger = self.ledger.charge(
            phase_number,
            compiled.price,
            compiled.program.batch_shape.tokens_per_step,
            int(counts.tokens),
            int(counts.unique),
            int(counts.masked),
        )
        self._reporter.add(PendingStep(self.ledger, phase_number, schedule_inputs, metrics, fetch))

    def report(self, *, last_too: bool = False) -> None:
        """Report the steps done: metrics to the function that watches the run, records to its log.

        Args:
            last_too: whether to wait for the last step, too. It is left for later where the devices
                would wait meanwhile; a budget of hours waits for each step in any case, before it
                looks at the clock.

        Raises:
            Diverged: a loss is not finite.
        """
        last_too = last_too or not self.spec.budget.countable
        self._reporter.report(steps_ahead=0 if last_too else 1)

    def finish_pending(self) -> None:
        """Wait for the last step, and report it.

        Raises:
            Diverged: its loss is not finite.
        """
        if self._reporter.has_pending:
            with self.stopwatch("compute"):
                self.report(last_too=True)
            self.read_stopwatch()

    def read_stopwatch_of_step(self) -> None:
        """Put the seconds of a step on the ledger: a budget of hours affords by the last one."""
        self.read_stopwatch()
        seconds = self.ledger.counted_seconds - self._ledger_before_step.counted_seconds
        self.ledger = replace(self.ledger, step_seconds=seconds)

    def read_stopwatch(self) -> None:
        """Put the seconds that have passed on the ledger."""
        seconds = self.stopwatch.seconds
        if not self.spec.budget.countable:
            # The clock decides then, and each process has its own.
            seconds = hosts.broadcast_from_main(seconds)
        self.ledger = replace(self.ledger, seconds=seconds)

    @override
    def evaluation_is_due(self) -> bool:
        return self._milestones.evaluation(self._ledger_before_step, self.ledger)

    @override
    def measure_held_out(self, state: State) -> None:
        on_own_curve = self._milestones.own_evaluation(self._ledger_before_step, self.ledger)
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
        with self.stopwatch("evaluation"):
            figures = dict(self.spec.evaluate(hosts.to_host(state.params["model"])))
        if on_own_curve:
            self._evaluated_step = self.steps
        else:
            figures = of_trunk(figures)
        point = {"flops": self.ledger.charged_flops, "share": self.ledger.share, **figures}
        self._records.log.write(self.steps, point)
        self.read_stopwatch()

    @override
    def snapshot_is_due(self) -> bool:
        return bool(self._milestones.words(self._ledger_before_step, self.ledger))

    @override
    def keep_snapshot(self, state: State) -> None:
        # A step whose loss is not finite is found first: it leaves no snapshot.
        self.finish_pending()
        if self.spec.snapshots is None:
            return
        with self.stopwatch("checkpoint"):
            params = hosts.to_host(state.params["model"])
            for words in self._milestones.words(self._ledger_before_step, self.ledger):
                self.spec.snapshots.keep(words, params, self.ledger)
        self.read_stopwatch()

    @override
    def trunk_ends(self) -> bool:
        return self._milestones.trunk_end(self._ledger_before_step, self.ledger)

    @override
    def keep_trunk(self, state: State) -> None:
        self.finish_pending()
        if self.spec.trunk is None:
            return
        with self.stopwatch("checkpoint"):
            self._records.keep_trunk(self.ledger)
            self.spec.trunk.keep(state, self.ledger, self._records.read())
        self.read_stopwatch()

    @override
    def save(self, state: State) -> None:
        self._save(state)

    @override
    def save_now(self, state: State) -> None:
        self._save(state, patience=0.0)
        self._saver.wait_until_saved(self.ledger, patience=0.0)

    def _save(self, state: State, patience: float | None = None) -> None:
        """Begin a checkpoint, with the patience of `CheckpointRetry.save`."""
        self.finish_pending()
        with self.stopwatch("checkpoint"):
            self._saver.save(state, self.ledger, self._records, patience)
        self.read_stopwatch()

    @override
    def end_phase(self, phase_number: int, state: State) -> None:
        if self.spec.phase_ended is None or any(self.ledger.steps_by_phase[phase_number + 1 :]):
            return
        self.finish_pending()
        params = hosts.to_host(state.params["model"])
        self.spec.phase_ended(phase_number, params, self.ledger)

    def finish(self, state: State) -> Outcome:
        """Write the last figures and the last checkpoint, and return what the run came to."""
        self._measure_held_out(state, on_own_curve=True)

        # Nothing is spent any more, so the last checkpoint is waited for.
        self.save(state)
        while not self._saver.wait_until_saved(self.ledger):
            self._saver.sleep_before_retry()
            self.save(state)
        params = hosts.to_host(state.params["model"])
        params_sha256 = sha256(params)
        return Outcome(
            params,
            self.ledger,
            self._records.log.curve(),
            params_sha256,
            self._records.finish(self.ledger, params_sha256),
            self._lanes,
            shared=self._records.shared(),
        )

    def abandon(self, error: Diverged) -> Outcome:
        """End the run that has diverged, and return what it came to until then.

        Its last checkpoint stays as it is: the same seed diverges again from there.
        """
        ledger = self.ledger
        if isinstance(error, DivergedStep):
            # The step after it may have begun by then: whether it had depends on the clock.
            ledger = replace(error.ledger, seconds=ledger.seconds)
        return Outcome(
            None,
            ledger,
            self._records.log.curve(),
            None,
            self._records.diverged(ledger, str(error)),
            self._lanes,
            str(error),
            shared=self._records.shared(),
        )
