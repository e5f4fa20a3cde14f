"""A run on its way: its account, and what is written down of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import jax
import numpy as np

from kdjax.budget import journal
from kdjax.budget.journal import Journal
from kdjax.budget.ledger import Ledger
from kdjax.errors import Diverged, InputError
from kdjax.parallel import hosts
from kdjax.progress import Progress
from kdjax.training import records
from kdjax.training.checkpoint import Checkpoints, Unsaved, sha256
from kdjax.training.input_pipeline import BatchCounts
from kdjax.training.metrics import Done, Meter
from kdjax.training.metrics_log import Log
from kdjax.training.profile import Profiler
from kdjax.training.run import Outcome, Run
from kdjax.training.step import ScheduleInputs, State
from kdjax.training.stopwatch import Stopwatch

RETRY_SECONDS = 60.0
"""Between tries to write the last checkpoint, while there is no room for it."""


class Underway:
    """A run on its way. Its state is not here: it lies with those of the runs beside it.

    Attributes:
        run: what it is.
        ledger: its account.
        clock: where its time went.
        outcome: what it came to, once it has finished.
    """

    outcome: Outcome

    def __init__(self, run: Run, checkpoints: Checkpoints):
        self.run = run
        self.ledger = Ledger.open(
            run.budget, len(run.compiled_phases), run.upfront, run.cache_bytes
        )
        self.clock = Stopwatch({})
        self._checkpoints = checkpoints
        self._damaged: list[str] = []  # checkpoints that could not be read
        self._waiting: list[Done] = []  # steps whose figures are on their way
        self._opened = ExitStack()
        self._failing: float | None = None  # since when no checkpoint can be written
        self._patience = run.config.checkpoint.patience

    def restore(self) -> State:
        """The state to go on from: at the start, or of the newest checkpoint that is whole."""
        program = self.run.compiled_phases[0].program
        found = self._checkpoints.restore(program.abstract_state())
        if found is None:
            return program.start(self.run.start, self.run.seed)
        self.ledger = found.ledger
        self._damaged = found.damaged
        self.clock = Stopwatch(self.ledger.seconds)
        records.restore(self.run.directory, found.records)
        if found.damaged:
            self.run.warn(
                f"{'; '.join(found.damaged)}; going on from the one of step {self.ledger.steps}"
            )
        state: State = found.state
        return state

    def open(self, together: Sequence[Underway]) -> None:
        """Opens what the run writes to.

        Args:
            together: the runs that go side by side from here on, itself among them.

        Raises:
            InputError: metrics.jsonl or the journal is damaged, or compiling takes all of the
                budget's hours.
        """
        run, compiled_phases = self.run, self.run.compiled_phases
        self._log = Log(run.directory, self.ledger.steps, run.config.log, run.about, run.warn)
        self._opened.callback(self._log.close)
        self._journal = Journal(run.directory / journal.NAME)
        if self._journal.entries:
            lost = self._log.reached - self.ledger.steps
            damaged = {"damaged": self._damaged} if self._damaged else {}
            self._journal.add(
                "restart", self.ledger, side_by_side=len(together), lost_steps=lost, **damaged
            )
        else:
            prices = [compiled_phase.price.to_json() for compiled_phase in compiled_phases]
            positions = [
                compiled_phase.program.shape.tokens_per_step for compiled_phase in compiled_phases
            ]
            self._journal.add(
                "open", self.ledger, side_by_side=len(together), prices=prices, positions=positions
            )
        for seconds in {
            id(compiled_phase.program): compiled_phase.program.compile_seconds
            for compiled_phase in compiled_phases
        }.values():
            self.clock.add("compile", seconds / len(together))
        self.read_clock()
        if self.ledger.used > self.ledger.budget.amount and not self.ledger.steps:
            raise InputError(
                f"{run.directory}: budget.hours is {self.ledger.budget.amount:g}, expected more "
                "than the "
                f"{self.ledger.used:.3g} hours that compiling took, as budget.clock counts it"
            )

    def begin(self, together: Sequence[Underway]) -> None:
        """Begins to measure; all of `together` are open. One profile is of all, and the first
        one's."""
        run = self.run
        steps = self.ledger.steps
        phases = [compiled_phase.phase for compiled_phase in run.compiled_phases]
        devices = run.compiled_phases[0].program.layout.devices
        others = [one.clock for one in together if one is not self]
        self._meter = Meter(phases, devices, self.ledger, self.clock, run.peak, others)
        captured = run.config.log.profile if hosts.is_main_process() and self is together[0] else ()
        self._profiler = Profiler(run.directory / "profile", captured, steps, run.warn)
        self._opened.callback(lambda: self._profiler.close(self.ledger.steps))
        self._side_by_side = len(together)
        self._evaluated = steps
        self._saved_step: int | None = steps

    def check(self, number: int, read: BatchCounts) -> None:
        """Raises InputError where a step of phase `number` repeats text that must not repeat."""
        if (
            read.fresh < self.run.compiled_phases[number].program.shape.batch_size
            and not self.run.repeats
        ):
            raise InputError(
                f"{self.run.directory}: step {self.ledger.steps + 1} would repeat text, expected "
                "none under "
                "data.regime 'unlimited'; add text or lower the budget"
            )

    def charge(
        self,
        number: int,
        read: BatchCounts,
        schedule_inputs: ScheduleInputs,
        metrics: Mapping[str, jax.Array],
        seat: int,
    ) -> None:
        """Puts a step on the account, once the devices are at it.

        Args:
            number: of its phase.
            read: what the run reads in it.
            schedule_inputs: when in the run it is.
            metrics: its figures, of all runs that take it.
            seat: the run's number among these.
        """
        compiled_phase = self.run.compiled_phases[number]
        self._before = self.ledger
        self.ledger = self.ledger.charge(
            number,
            compiled_phase.price,
            compiled_phase.program.shape.tokens_per_step,
            read.tokens,
            read.unique,
            read.masked,
        )
        self._waiting.append(Done(self.ledger, number, schedule_inputs, metrics, seat))

    def report(self, *, ahead: int = 0) -> None:
        """Says what steps came to.

        Args:
            ahead: the last steps, of which it does not; the devices may be busy with them.

        Raises:
            Diverged: the loss is not finite.
        """
        while len(self._waiting) > ahead:
            done = self._waiting.pop(0)
            then = done.ledger
            recorded = done.ledger.steps % self.run.config.log.every == 0
            values = done.fetched(whole=recorded)
            if not np.isfinite(values["loss"]):
                raise Diverged(
                    f"{self.run.directory}: the loss is {values['loss']} at step {then.steps}, "
                    "expected a finite one; "
                    "lower the optimizer's learning_rate or set its clip"
                )
            self.run.watch(Progress(then, values))
            if recorded:
                self._log.write(then.steps, self._meter.record(done, values))

    def timed(self) -> None:
        """Reads the clock after a step."""
        self.read_clock()
        seconds = self.ledger.counted_seconds - self._before.counted_seconds
        self.ledger = replace(self.ledger, step_seconds=seconds)

    @contextmanager
    def profiled(self) -> Iterator[None]:
        """Has the step in the block captured, if it is one of those that the settings name."""
        step = self.ledger.steps + 1
        profiler = self._profiler
        if profiler.starts(step):
            self.settle()
            with self.clock("profile"):
                profiler.start()
        with profiler.step(step):
            yield
        if profiler.ends(step):
            self.settle()
            with self.clock("profile"):
                profiler.stop()
            self.read_clock()

    def evaluate(self, state: State) -> None:
        """Measures the student on held-out text, unless that was done after this very step."""
        if self.run.evaluate is None or self._evaluated == self.ledger.steps:
            return
        with self.clock("evaluation"):
            figures = self.run.evaluate(hosts.to_host(state.params["model"]))
        self._log.write(
            self.ledger.steps, {"flops": self.ledger.total, "share": self.ledger.share, **figures}
        )
        self._evaluated = self.ledger.steps
        self.read_clock()

    def end_phase(self, number: int, state: State) -> None:
        """Tells whoever wants to know that phase `number` is done, unless the run is in a later one
        already."""
        if self.run.phase_ended is None or any(self.ledger.phases[number + 1 :]):
            return
        self.run.phase_ended(number, hosts.to_host(state.params["model"]), self.ledger)

    def save(self, state: State) -> None:
        """Begins a checkpoint, with an entry in the journal, unless this very step has them.

        What cannot be written is said, and tried again when the next checkpoint is due.

        Raises:
            InputError: nothing could be written for too long.
        """
        self.settle()
        if self._saved_step == self.ledger.steps:
            return
        with self.clock("checkpoint"):
            self._commit()  # the one before
            try:
                self._log.flush()
                self._journal.add("steps", self.ledger)
                self._checkpoints.save(state, self.ledger, records.read(self.run.directory))
                self._saved_step = self.ledger.steps
            except (OSError, Unsaved) as e:
                self._failed(e)
        self.read_clock()

    def keep(self, state: State) -> None:
        """Writes a checkpoint now or never: the process was told to stop.

        Raises:
            InputError: it cannot be written.
        """
        self._patience = 0.0
        self.save(state)
        self._commit()

    def finish(self, state: State) -> None:
        """The last figures and the last checkpoint; nothing is spent any more."""
        self.evaluate(state)
        self.save(state)
        while not self._commit():
            time.sleep(min(RETRY_SECONDS, self._patience))
            self.save(state)
        params = hosts.to_host(state.params["model"])
        found = sha256(params)
        self._journal.add("close", self.ledger, params_sha256=found)
        self.outcome = Outcome(
            params, self.ledger, self._log.curve(), found, self._journal.head, self._side_by_side
        )

    def close(self) -> None:
        """Closes what the run writes to, in whatever way it ended."""
        self._opened.close()

    def settle(self) -> None:
        """Waits for the last step, unless that was done."""
        if self._waiting:
            with self.clock("compute"):
                self.report()
            self.read_clock()

    def read_clock(self) -> None:
        """Puts the seconds that have passed on the account."""
        seconds = self.clock.seconds
        # Then it decides, and processes have clocks of their own
        if not self.ledger.budget.countable:
            seconds = hosts.broadcast_from_main(seconds)
        self.ledger = replace(self.ledger, seconds=seconds)

    def _commit(self) -> bool:
        """Waits for the checkpoint in progress; whether this step has one now."""
        try:
            if self._checkpoints.wait():
                self._failing = None
        except Unsaved as e:
            self._saved_step = None
            self._failed(e)
        return self._saved_step == self.ledger.steps

    def _failed(self, error: OSError | Unsaved) -> None:
        """Says that a checkpoint cannot be written; the run goes on for as long as the settings
        say.

        Raises:
            InputError: that time is over.
        """
        self._failing = self._failing or time.monotonic()
        left = self._patience - (time.monotonic() - self._failing)
        where = self.run.directory
        what = (
            f"{where} cannot be written ({error.strerror})"
            if isinstance(error, OSError)
            else str(error)
        )
        if left <= 0:
            raise InputError(
                f"{what}, expected room for it; the same command goes on from the last whole "
                "checkpoint"
            )
        self.run.warn(
            f"{what}; the run goes on without a checkpoint of step {self.ledger.steps}, for "
            f"{left:.0f} s at most"
        )
