"""Several seeds of an arm trained at once: one lane each in a vmapped step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from typing_extensions import override

from kdjax.errors import Diverged, InputError
from kdjax.parallel.host_sums import BatchCounts
from kdjax.training.input_pipeline import StepInput, Stream, step_inputs
from kdjax.training.loop import TrainingLoop
from kdjax.training.outcome import Outcome
from kdjax.training.program import Program
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
            stopwatches = {lane: Stopwatch(run.ledger.seconds) for lane, run in group.items()}
            trainers = {}
            for lane, run in group.items():
                # Only one directory gets the profile of a step, which is of all lanes.
                trainer = Trainer(
                    run, stopwatches[lane], list(stopwatches.values()), profiles=lane == min(group)
                )
                trainers[lane] = stack.enter_context(trainer)
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
        self._all_lanes = trainers
        self._lanes = dict(trainers)
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

        self._each_with_state(stacked, finish)

    @property
    def _first(self) -> Trainer:
        """Return the run that stands for all that go on."""
        return self._lanes[min(self._lanes)]

    @property
    @override
    def steps(self) -> int:
        return self._first.steps

    @override
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        program = self._first.spec.compiled_phases[phase_number].program
        streams = []
        for lane in self._filled:
            streams.append(self._all_lanes[lane].spec.compiled_phases[phase_number].stream)
        stream = StackedStream(streams, program)
        sequences_seen = self._first.account.sequences_seen(phase_number)
        return step_inputs(program, stream, sequences_seen, self.policy.signals)

    @override
    def affords_step(self, phase_number: int) -> bool:
        return self._first.affords_step(phase_number)

    @override
    def profiled_step(self) -> AbstractContextManager[None]:
        return self._first.capture_step(lambda: self._report(last_too=True))

    @override
    def next_input(self, inputs: Iterator[StepInput]) -> StepInput:
        with self._shared_stopwatch("input"):
            return next(inputs)

    @override
    def take_step(self, phase_number: int, step_input: StepInput, state: State) -> State:
        compiled = self._first.spec.compiled_phases[phase_number]
        counts = {lane: lane_counts(step_input.counts, lane) for lane in self._lanes}
        for lane, trainer in self._lanes.items():
            trainer.account.refuse_repeated_text(phase_number, counts[lane])

        # One step, charged to each ledger
        schedule_inputs = self._first.account.schedule_inputs(phase_number)
        with self._shared_stopwatch("compute"):
            state, metrics = compiled.program.step(
                state, compiled.teacher_params, step_input.batch, schedule_inputs
            )
            for lane, trainer in self._lanes.items():
                fetch = functools.partial(fetch_lane, lane)
                trainer.charge_and_queue(
                    phase_number, counts[lane], schedule_inputs, metrics, fetch
                )
            self._report()
        for trainer in self._lanes.values():
            trainer.account.read_stopwatch_of_step()
        return state

    @override
    def evaluation_is_due(self) -> bool:
        return self._first.evaluation_is_due()

    @override
    def measure_held_out(self, state: State) -> None:
        self._each_with_state(state, Trainer.measure_held_out)

    @override
    def snapshot_is_due(self) -> bool:
        # Each seed has its own text, and reaches as many words at a step of its own.
        return any(trainer.snapshot_is_due() for trainer in self._lanes.values())

    @override
    def keep_snapshot(self, state: State) -> None:
        def keep(trainer: Trainer, state: State) -> None:
            if trainer.snapshot_is_due():
                trainer.keep_snapshot(state)

        self._each_with_state(state, keep)

    @override
    def trunk_ends(self) -> bool:
        return self._first.trunk_ends()

    @override
    def keep_trunk(self, state: State) -> None:
        self._each_with_state(state, Trainer.keep_trunk)

    @override
    def save(self, state: State) -> None:
        self._each_with_state(state, Trainer.save)

    @override
    def save_now(self, state: State) -> None:
        self._each_with_state(state, Trainer.save_now)

    @override
    def end_phase(self, phase_number: int, state: State) -> None:
        if self._first.spec.phase_ended is not None:
            self._each_with_state(
                state, lambda trainer, state: trainer.end_phase(phase_number, state)
            )

    def _report(self, *, last_too: bool = False) -> None:
        """Report the steps of every run that goes on (`Trainer.report`).

        A run that diverges has its outcome, and leaves the others.

        Raises:
            Diverged: none is left.
        """
        for trainer in list(self._lanes.values()):
            try:
                trainer.report(last_too=last_too)
            except Diverged as e:
                self._abandon(trainer, e)

    def _abandon(self, trainer: Trainer, error: Diverged) -> None:
        """Keep the outcome of a run that has diverged; raise the error where none is left."""
        lane = self._lane_of[trainer]
        self.outcomes[lane] = trainer.abandon(error)
        del self._lanes[lane]
        if not self._lanes:
            raise error

    def _each_with_state(self, states: State, act: Callable[[Trainer, State], None]) -> None:
        """Report all steps, then call a function on every run that goes on, with its state.

        Args:
            states: states of all lanes.
            act: function to call.

        Raises:
            Diverged: every run has diverged.
            InputError: anything else that goes wrong for one run; the others are saved.
        """
        with self._shared_stopwatch("compute"):
            self._report(last_too=True)
        failures: dict[Trainer, InputError] = {}
        for trainer in list(self._lanes.values()):
            try:
                act(trainer, self._state_of(trainer, states))
            except Diverged as e:
                self._abandon(trainer, e)
            except InputError as e:
                failures[trainer] = e
        if not failures:
            return
        # One run's fault must not cost the others their steps.
        for trainer in self._lanes.values():
            if trainer not in failures:
                with suppress(InputError):
                    trainer.save(self._state_of(trainer, states))
        raise next(iter(failures.values()))

    def _state_of(self, trainer: Trainer, states: State) -> State:
        """Return a run's state, out of its lane."""
        return self._program.unstack(states, self._lane_of[trainer])

    def _shared_stopwatch(self, kind: str) -> AbstractContextManager[None]:
        """Count the seconds of the block, in even shares, on every run's stopwatch."""
        return shared([trainer.account.stopwatch for trainer in self._lanes.values()], kind)


def lane_counts(counts: BatchCounts, lane: int) -> BatchCounts:
    """Return the counts of one lane, from those of a stacked batch."""
    return BatchCounts(
        counts.fresh_sequences,
        tokens=counts.tokens[lane],
        fresh_tokens=counts.fresh_tokens[lane],
        masked_tokens=counts.masked_tokens[lane],
    )


def fetch_lane(lane: int, metrics: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Bring the metrics of one lane to the host, from those of all."""
    return {name: values[lane] for name, values in jax.device_get(metrics).items()}
