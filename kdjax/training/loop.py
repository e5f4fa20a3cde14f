"""Training: runs of one arm, one or several side by side, from their start to the end of their
budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from typing import NoReturn

from kdjax.budget.ledger import Ledger
from kdjax.config import TrainConfig
from kdjax.errors import InputError, Stopped
from kdjax.parallel import hosts
from kdjax.parallel.preemption import PREEMPTION
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.input_pipeline import HostSignals, StepInput, feed
from kdjax.training.run import CompiledPhase, Outcome, Run
from kdjax.training.step import ScheduleInputs, State
from kdjax.training.stopwatch import shared
from kdjax.training.underway import Underway


def train(*runs: Run) -> list[Outcome]:
    """Trains until the ledgers are full, or goes on where an interrupted call stopped.

    Several runs go side by side, a seat each in a program compiled for so many; each keeps its own
    account, journal, metrics and checkpoints, as if it were alone. They differ in seed, start,
    stream and directory only, and their budget is of FLOPs or tokens, so that all take the same
    step at the same time. Those that checkpoints leave at different steps go one group after
    another.

    A budget of hours waits for each step before it looks at the clock, and starts none that would
    not end within the budget if it took as long as the one before. What a kill undid is not
    counted, except in the journal.

    Args:
        runs: one, or as many as the programs of their legs are compiled for.

    Raises:
        Diverged: the loss of a run is not finite; the others beside it are saved.
        InputError: text would repeat, compiling takes all of the budget's hours, all checkpoints or
            the journal are damaged, or no checkpoint could be written for
            `config.checkpoint.patience`; several runs under hours.
        Stopped: the process was told to stop; a checkpoint of each run is saved.
    """
    if len(runs) > 1 and not runs[0].budget.countable:
        raise InputError(
            f"{len(runs)} runs side by side under a budget of hours, expected one: each would "
            "take its own"
        )
    with PREEMPTION.between_steps(), ExitStack() as stack:
        underway = [_opened(run, stack) for run in runs]
        states = {one: one.restore() for one in underway}
        for step in sorted({one.ledger.steps for one in underway}):
            at_step = {seat: one for seat, one in enumerate(underway) if one.ledger.steps == step}
            _to_the_end(SideBySide(at_step, {one: states.pop(one) for one in at_step.values()}))
        return [one.outcome for one in underway]


def _opened(run: Run, stack: ExitStack) -> Underway:
    place = run.checkpoints or hosts.shared_dir(run.directory / "checkpoints")
    checkpoints = stack.enter_context(Checkpoints(place, run.config.checkpoint.keep))
    return stack.enter_context(closing(Underway(run, checkpoints)))


def _to_the_end(group: SideBySide) -> None:
    """The rest of the budget, phase by phase, step by step."""
    evaluations = group.config.evaluations
    group.begin()
    for number, compiled_phase in enumerate(group.compiled_phases):
        batches = group.feed(number)
        while group.ledger.affords(
            compiled_phase.price,
            compiled_phase.program.shape.tokens_per_step,
            compiled_phase.phase.until,
        ):
            share = group.ledger.share
            with group.profiled():
                votes = group.step(number, batches)
            if _milestone(group.ledger.share, evaluations) > _milestone(share, evaluations):
                group.evaluate()
            if votes.stop:
                group.stop()
            if votes.save > group.saves:
                group.save()
        group.end_phase(number)
    group.finish()


class SideBySide:
    """Runs at one step that go on together: a seat each in the program.

    All that follows from their accounts, but for tokens, is the same for each of them, and read off
    the first. A seat that no run has computes what the first one's does, for nobody.
    """

    def __init__(self, seats: Mapping[int, Underway], states: Mapping[Underway, State]):
        """Seats the runs.

        Args:
            seats: number of a seat -> run.
            states: run -> its state, which is used up.
        """
        self._seats = seats
        self._runs = list(seats.values())
        self._first = self._runs[0]
        self._program = self.compiled_phases[0].program
        self._seat_of = {one: number for number, one in seats.items()}
        self._seated = [seats.get(number, self._first) for number in range(self._program.seeds)]
        self._states = self._program.together([states[one] for one in self._seated])

    @property
    def compiled_phases(self) -> Sequence[CompiledPhase]:
        """The phases, with the first run's streams."""
        return self._first.run.compiled_phases

    @property
    def config(self) -> TrainConfig:
        """Training settings."""
        return self._first.run.config

    @property
    def ledger(self) -> Ledger:
        """The account of the first."""
        return self._first.ledger

    def begin(self) -> None:
        """Opens all that the runs write to."""
        for one in self._runs:
            one.open(self._runs)
        for one in self._runs:
            one.begin(self._runs)
        self.saves = 0
        self._saved = time.monotonic()

    def feed(self, number: int) -> Iterator[StepInput]:
        """What goes into the steps of phase `number`."""
        program = self.compiled_phases[number].program
        streams = [one.run.compiled_phases[number].stream for one in self._seated]
        return feed(program, streams, self.ledger.positions // program.shape.seq_len, self._votes)

    def step(self, number: int, batches: Iterator[StepInput]) -> HostSignals:
        """One step of phase `number`; what all processes want after it."""
        compiled_phase = self.compiled_phases[number]
        ledger = self.ledger
        with self._clock("input"):
            fed = next(batches)
        for seat, one in self._seats.items():
            one.check(number, fed.reads[seat])
        before = ledger.training_share
        after = (
            before
            + ledger.step(compiled_phase.price, compiled_phase.program.shape.tokens_per_step)
            / ledger.training_amount
        )
        schedule_inputs = ScheduleInputs(before, compiled_phase.phase.learning_rate(before, after))
        with self._clock("compute"):
            self._states, metrics = compiled_phase.program.step(
                self._states, compiled_phase.teacher, fed.batch, schedule_inputs
            )
            for seat, one in self._seats.items():
                one.charge(number, fed.reads[seat], schedule_inputs, metrics, seat)
            # The devices are busy with this step meanwhile
            ahead = 1 if ledger.budget.countable else 0
            self._each(lambda one: one.report(ahead=ahead))
        for one in self._runs:
            one.timed()
        return fed.votes

    def profiled(self) -> AbstractContextManager[None]:
        """Has the step in the block captured, if it is one of those that the settings name."""
        return self._first.profiled()

    def evaluate(self) -> None:
        """Measures the students on held-out text."""
        self._each_with_state(Underway.evaluate)

    def save(self) -> None:
        """Begins a checkpoint of each."""
        self._each_with_state(Underway.save)
        self.saves = self.saves + 1
        self._saved = time.monotonic()

    def end_phase(self, number: int) -> None:
        """Has phase `number` told of as done, where someone wants to know; before any step of the
        next is taken."""
        if any(one.run.phase_ended for one in self._runs):
            self._each_with_state(lambda one, state: one.end_phase(number, state))

    def stop(self) -> NoReturn:
        """Ends with a checkpoint of each: the process was told to.

        Raises:
            Stopped: they are saved.
            InputError: one cannot be.
        """
        self._each_with_state(Underway.keep)
        raise Stopped(f"saved at step {self.ledger.steps}")

    def finish(self) -> None:
        """The last figures and the last checkpoints."""
        self._each_with_state(Underway.finish)

    def _each_with_state(self, act: Callable[[Underway, State], None]) -> None:
        """Does something for every run with its state, once all steps are done."""
        with self._clock("compute"):
            self._each(Underway.report)
        self._each(lambda one: act(one, self._own(one)))

    def _each(self, act: Callable[[Underway], None]) -> None:
        """Does something for every run. Where one fails nobody goes on, but the others are
        saved."""
        failed: dict[Underway, InputError] = {}
        for one in self._runs:
            try:
                act(one)
            except InputError as e:
                failed[one] = e
        for one in self._runs if failed else ():
            if one not in failed:
                with suppress(InputError):
                    one.save(self._own(one))
        for error in failed.values():
            raise error

    def _own(self, one: Underway) -> State:
        """A run's state."""
        return self._program.own(self._states, self._seat_of[one])

    def _votes(self) -> HostSignals:
        """What this process wants: to stop, or a checkpoint."""
        due = time.monotonic() - self._saved >= self.config.checkpoint.seconds
        return HostSignals(PREEMPTION.stop_requested(), self.saves + 1 if due else 0)

    def _clock(self, kind: str) -> AbstractContextManager[None]:
        """Shares the seconds of the block out evenly."""
        return shared([one.clock for one in self._runs], kind)


def _milestone(share: float, evaluations: int) -> int:
    """How many of the evenly spaced evaluations are due at a share of the budget."""
    return math.floor(share * evaluations + 1e-9)
