"""What a run has spent: its ledger, charged step by step, and the seconds of its stopwatch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from kdjax.budget.ledger import Ledger
from kdjax.errors import InputError
from kdjax.parallel import hosts
from kdjax.parallel.host_sums import BatchCounts
from kdjax.training.program import Program
from kdjax.training.run_spec import RunSpec
from kdjax.training.step import ScheduleInputs
from kdjax.training.stopwatch import Stopwatch


class RunAccount:
    """The ledger of one run as it goes on, and what follows from it for the next step.

    Attributes:
        ledger: account of what the run has spent so far.
        before_step: the ledger before the last step that was charged.
        stopwatch: stopwatch of where the run's time went.
    """

    def __init__(self, spec: RunSpec, ledger: Ledger, stopwatch: Stopwatch):
        """Go on from a ledger.

        Args:
            spec: what the run is made of.
            ledger: what the run has spent so far.
            stopwatch: its stopwatch, with the seconds of the ledger.
        """
        self._spec = spec
        self.ledger = ledger
        self.before_step = ledger
        self.stopwatch = stopwatch

    def sequences_seen(self, phase_number: int) -> int:
        """Return the number of sequences the run has seen, when the phase begins or goes on."""
        # All phases have sequences of one length, padding included.
        batch_shape = self._spec.compiled_phases[phase_number].program.batch_shape
        return self.ledger.padded_tokens // batch_shape.seq_len

    def affords_step(self, phase_number: int) -> bool:
        """Return whether a step of the phase ends before its share of the budget."""
        compiled = self._spec.compiled_phases[phase_number]
        return self.ledger.affords(
            compiled.price, compiled.program.batch_shape.tokens_per_step, compiled.phase.until
        )

    def schedule_inputs(self, phase_number: int) -> ScheduleInputs:
        """Return the inputs of the phase's next step: share of the budget, learning rate."""
        compiled = self._spec.compiled_phases[phase_number]
        cost = self.ledger.step_cost(compiled.price, compiled.program.batch_shape.tokens_per_step)
        before = self.ledger.training_share
        after = before + cost / self.ledger.training_amount
        used = self.ledger.training_used + cost
        return ScheduleInputs(before, compiled.phase.learning_rate(before, after, used))

    def refuse_repeated_text(self, phase_number: int, counts: BatchCounts) -> None:
        """Raise InputError where a step of the phase would repeat text that must not repeat."""
        batch_size = self._spec.compiled_phases[phase_number].program.batch_shape.batch_size
        if counts.fresh_sequences < batch_size and not self._spec.repeats:
            raise InputError(
                f"{self._spec.directory}: step {self.ledger.steps + 1} would repeat text, expected "
                "none under data.regime 'unlimited'; add text or lower the budget"
            )

    def charge_step(self, phase_number: int, counts: BatchCounts) -> None:
        """Charge a step to the ledger, once the devices are at it.

        Args:
            phase_number: number of its phase.
            counts: what the run reads in it.
        """
        compiled = self._spec.compiled_phases[phase_number]
        self.before_step = self.ledger
        self.ledger = self.ledger.charge(
            phase_number,
            compiled.price,
            compiled.program.batch_shape.tokens_per_step,
            int(counts.tokens),
            int(counts.fresh_tokens),
            int(counts.masked_tokens),
        )

    def charge_compiling(self, programs: Iterable[Program], lanes: int) -> None:
        """Put the seconds that compiling took on the ledger.

        Args:
            programs: programs of the run's phases.
            lanes: runs that share them; each takes an even part of the seconds.

        Raises:
            InputError: they are all of the budget's hours.
        """
        # Phases may share a program, which is compiled once.
        for program in dict.fromkeys(programs):
            self.stopwatch.add("compile", program.compile_seconds / lanes)
        self.read_stopwatch()
        budget = self._spec.budget
        if self.ledger.used > budget.amount and not self.ledger.steps:
            raise InputError(
                f"{self._spec.directory}: budget.hours is {budget.amount:g}, expected more than "
                f"the {self.ledger.used:.3g} hours that compiling took, as budget.clock counts it"
            )

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the seconds of the block on the stopwatch, and then put them on the ledger."""
        with self.stopwatch.measure(kind):
            yield
        self.read_stopwatch()

    def read_stopwatch(self) -> None:
        """Put the seconds that have passed on the ledger."""
        seconds = self.stopwatch.seconds
        if not self._spec.budget.countable:
            # The clock decides then, and each process has its own.
            seconds = hosts.broadcast_from_main(seconds)
        self.ledger = replace(self.ledger, seconds=seconds)

    def read_stopwatch_of_step(self) -> None:
        """Put the seconds of a step on the ledger: a budget of hours affords by the last one."""
        self.read_stopwatch()
        seconds = self.ledger.counted_seconds - self.before_step.counted_seconds
        self.ledger = replace(self.ledger, step_seconds=seconds)
