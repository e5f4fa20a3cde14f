"""Several seeds of an arm trained at once: one lane each in a vmapped step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from typing_extensions import override

from kdjax.errors import Diverged, InputError
from kdjax.parallel.host_sums import BatchCounts, HostSignals
from kdjax.training.due_work import DueWork
from kdjax.training.input_pipeline import StepInput, Stream, step_inputs
from kdjax.training.lanes import Lane
from kdjax.training.loop import TrainingLoop
from kdjax.training.outcome import Outcome
from kdjax.training.program import Program
from kdjax.training.run_account import RunAccount
from kdjax.training.run_spec import RestoredRun
from kdjax.training.step import State
from kdjax.training.stopwatch import Stopwatch, shared
from kdjax.training.trainer import Trainer


@dataclass(frozen=True)
class StackedStream:
    """The batches of several runs, stacked.

    Attributes:
        streams: one for each lane, of as many sequences.
        program: the step that the batches are for.
    """

    streams: Sequence[Stream]
    program: Program

    @property
    def sequences(self) -> int:
        """Return the number of sequences before they repeat."""
        return self.streams[0].sequences

    def iterate(
        self, seen: int, rows: Any = slice(None)
    ) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """Yield stacked batches, each with how many sequences a lane has seen before it."""
        iterators = [stream.iterate(seen, rows) for stream in self.streams]
        for numbered in zip(*iterators, strict=True):
            seen_before, _ = numbered[0]
            yield seen_before, self.program.stack_batches([batch for _, batch in numbered])


def train_vmapped(restored: Sequence[RestoredRun]) -> list[Outcome]:
    """Train runs until their ledgers afford no further step.

    Those that checkpoints left at different steps go on one group after another.

    Args:
        restored: the runs, one for each lane of their programs.

    Raises:
        InputError: text would repeat, all checkpoints or a journal are damaged, or no checkpoint
            could be written for `config.checkpoint.patience`.
        Stopped: the process was told to stop; a checkpoint of each run is saved.
    """
    # Runs that were killed while their checkpoints were written may be at different steps.
    outcomes: dict[int, Outcome] = {}
    for step in sorted({run.ledger.steps for run in restored}):
        group = {lane: run for lane, run in enumerate(restored) if run.ledger.steps == step}
        with ExitStack() as stack:
            stopwatches = {number: Stopwatch(run.ledger.seconds) for number, run in group.items()}
            trainers = {}
            for number, run in group.items():
                # Only one directory gets the profile of a step, which is of all lanes.
                has_profile = number == min(group)
                lane = Lane(number, list(stopwatches.values()), has_profile)
                trainers[number] = stack.enter_context(Trainer(run, stopwatches[number], lane))
            vmapped_trainer = VmappedTrainer(trainers)
            states = {lane: run.take_state() for lane, run in group.items()}
            # Raised when no run is left; one that diverges before is its own outcome.
            with suppress(Diverged):
                vmapped_trainer.train(states)
            outcomes |= vmapped_trainer.outcomes
    return [outcomes[lane] for lane in range(len(restored))]


class VmappedTrainer(TrainingLoop):
    """Runs at the same step that go on at once, a lane each.

    Each is a `Trainer` with a ledger, journal, metrics and checkpoints of its own, as if it were
    alone. They differ in seed, start, stream and directory only, so all that follows from their
    ledgers but for tokens is the same for each of them, and read off the first.
    """

    def __init__(self, trainers: Mapping[int, Trainer]):
        """Give each run its lane.

        A lane without a run computes what the first run does, for nobody.

        Args:
            trainers: lane -> run, ascending.
        """
        self.outcomes: dict[int, Outcome] = {}
        self._all_trainers = trainers
        # Those that have not diverged
        self._trainers = dict(trainers)
        self._lane_of = {trainer: lane for lane, trainer in trainers.items()}
        spec = self._first.spec
        super().__init__(len(spec.compiled_phases), spec.config.checkpoint.seconds)
        self._program = spec.compiled_phases[0].program
        # Which lane's run each lane computes
        self._filled = [min(trainers)] * self._program.lanes
        for lane in trainers:
            self._filled[lane] = lane

    def train(self, states: dict[int, State]) -> None:
        """Train the runs, and finish those that go on.

        Args:
            states: lane -> the run's state; taken out and used up.

        Raises:
            Diverged: the losses of all runs that were left are not finite.
            InputError: text would repeat, a journal is damaged, or no checkpoint could be written
                for `config.checkpoint.patience`.
            Stopped: the process was told to stop; a checkpoint of each run is saved.
        """
        stacked = self._program.stack([states[lane] for lane in self._filled])
        states.clear()
        stacked = self.run(stacked)

        def finish(trainer: Trainer, state: State) -> None:
            self.outcomes[self._lane_of[trainer]] = trainer.finish(state)

        self._for_each_run(finish, stacked)

    @property
    def _first(self) -> Trainer:
        """Return the run that stands for all that go on."""
        return self._trainers[min(self._trainers)]

    @property
    @override
    def account(self) -> RunAccount:
        return self._first.account

    @override
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        program = self._first.spec.compiled_phases[phase_number].program
        streams = []
        for lane in self._filled:
            streams.append(self._all_trainers[lane].spec.compiled_phases[phase_number].stream)
        stream = StackedStream(streams, program)
        sequences_seen = self.account.sequences_seen(phase_number)
        return step_inputs(program, stream, sequences_seen, self.policy.signals)

    @override
    def take_step(
        self, phase_number: int, inputs: Iterator[StepInput], state: State
    ) -> tuple[State, HostSignals]:
        compiled = self._first.spec.compiled_phases[phase_number]
        with self._first.capture_step(lambda: self._report(last_too=True)):
            # One input, of which every run reads its lane
            with self._shared_stopwatch("input"):
                step_input = next(inputs)
            counts = {lane: lane_counts(step_input.counts, lane) for lane in self._trainers}
            for lane, trainer in self._trainers.items():
                trainer.account.refuse_repeated_text(phase_number, counts[lane])

            # One step, charged to each ledger
            schedule_inputs = self.account.schedule_inputs(phase_number)
            with self._shared_stopwatch("compute"):
                state, metrics = compiled.program.step(
                    state, compiled.teacher_params, step_input.batch, schedule_inputs
                )
                for lane, trainer in self._trainers.items():
                    trainer.charge_and_queue(phase_number, counts[lane], schedule_inputs, metrics)
                self._report()

            # Its seconds are on the stopwatches now.
            for trainer in self._trainers.values():
                trainer.account.read_stopwatch_of_step()
        return state, step_input.signals

    @override
    def due_work(self) -> DueWork:
        # Each seed has its own text, and reaches as many words at a step of its own.
        snapshot_words: set[int] = set()
        for trainer in self._trainers.values():
            snapshot_words.update(trainer.due_work().snapshot_words)
        return replace(self._first.due_work(), snapshot_words=sorted(snapshot_words))

    @override
    def measure_held_out(self, state: State) -> None:
        self._for_each_run(Trainer.measure_held_out, state)

    @override
    def keep_snapshots(self, state: State) -> None:
        self._for_each_run(Trainer.keep_snapshots, state)

    @override
    def keep_trunk(self, state: State) -> None:
        self._for_each_run(Trainer.keep_trunk, state)

    @override
    def begin_checkpoint(self, state: State) -> None:
        self._for_each_run(Trainer.begin_checkpoint, state)

    @override
    def write_checkpoint(self, state: State) -> None:
        self._for_each_run(Trainer.write_checkpoint, state)

    @override
    def end_phase(self, phase_number: int, state: State) -> None:
        if self._first.spec.phase_ended is not None:
            self._for_each_run(
                lambda trainer, run_state: trainer.end_phase(phase_number, run_state), state
            )

    def _report(self, *, last_too: bool = False) -> None:
        """Report the steps of every run that goes on (`Trainer.report`).

        A run that diverges has its outcome, and leaves the others.

        Raises:
            Diverged: none is left.
        """
        for trainer in list(self._trainers.values()):
            try:
                trainer.report(last_too=last_too)
            except Diverged as e:
                self._abandon(trainer, e)

    def _abandon(self, trainer: Trainer, error: Diverged) -> None:
        """Keep the outcome of a run that has diverged; raise the error where none is left."""
        lane = self._lane_of[trainer]
        self.outcomes[lane] = trainer.abandon(error)
        del self._trainers[lane]
        if not self._trainers:
            raise error

    def _for_each_run(self, act: Callable[[Trainer, State], None], states: State) -> None:
        """Report all steps, then call a function on every run that goes on, with its state.

        Args:
            act: function to call.
            states: states of all lanes.

        Raises:
            Diverged: every run has diverged.
            InputError: anything else that goes wrong for one run; the others are saved.
        """
        with self._shared_stopwatch("compute"):
            self._report(last_too=True)
        failures: dict[Trainer, InputError] = {}
        for trainer in list(self._trainers.values()):
            try:
                act(trainer, self._state_of(trainer, states))
            except Diverged as e:
                self._abandon(trainer, e)
            except InputError as e:
                failures[trainer] = e
        if not failures:
            return
        # One run's fault must not cost the others their steps.
        for trainer in self._trainers.values():
            if trainer not in failures:
                with suppress(InputError):
                    trainer.begin_checkpoint(self._state_of(trainer, states))
        raise next(iter(failures.values()))

    def _state_of(self, trainer: Trainer, states: State) -> State:
        """Return a run's state, out of its lane."""
        return self._program.unstack(states, self._lane_of[trainer])

    def _shared_stopwatch(self, kind: str) -> AbstractContextManager[None]:
        """Count the seconds of the block, in even shares, on every run's stopwatch."""
        return shared([trainer.account.stopwatch for trainer in self._trainers.values()], kind)


def lane_counts(counts: BatchCounts, lane: int) -> BatchCounts:
    """Return the counts of one lane, from those of a stacked batch."""
    return BatchCounts(
        counts.fresh_sequences,
        tokens=counts.tokens[lane],
        fresh_tokens=counts.fresh_tokens[lane],
        masked_tokens=counts.masked_tokens[lane],
    )
