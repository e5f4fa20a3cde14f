"""Several seeds of an arm trained at once: one lane each in a vmapped step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from kdjax.errors import InputError, Stopped
from kdjax.parallel.host_sums import BatchCounts, HostSignals
from kdjax.training.checkpoint_policy import CheckpointPolicy
from kdjax.training.input_pipeline import StepInput, Stream, step_inputs
from kdjax.training.outcome import Outcome
from kdjax.training.program import Program
from kdjax.training.step import State
from kdjax.training.stopwatch import shared
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
        """Return how many sequences there are before they repeat."""
        return self.streams[0].sequences

    def iterate(
        self, seen: int, rows: Any = slice(None)
    ) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """Yield stacked batches, each with how many sequences a lane has seen before it."""
        iterators = [stream.iterate(seen, rows) for stream in self.streams]
        for numbered in zip(*iterators, strict=True):
            seen_before, _ = numbered[0]
            yield seen_before, self.program.stack_batches([batch for _, batch in numbered])


def train_vmapped(trainers: Sequence[Trainer]) -> list[Outcome]:
    """Train runs until their ledgers afford no further step.

    Those that checkpoints left at different steps go on one group after another.

    Args:
        trainers: opened, one for each lane of their programs.

    Raises:
        As `kdjax.training.train.train`.
    """
    # Runs that were killed while their checkpoints were written may be at different steps.
    states = {lane: trainer.restore() for lane, trainer in enumerate(trainers)}
    outcomes: dict[int, Outcome] = {}
    for step in sorted({trainer.ledger.steps for trainer in trainers}):
        group = {}
        for lane, trainer in enumerate(trainers):
            if lane in states and trainer.ledger.steps == step:
                group[lane] = trainer
        outcomes |= VmappedTrainer(group, {lane: states.pop(lane) for lane in group}).run()
    return [outcomes[lane] for lane in range(len(trainers))]


class VmappedTrainer:
    """Runs at the same step that go on at once, a lane each.

    Each is a `Trainer` with a ledger, journal, metrics and checkpoints of its own, as if it were
    alone. They differ in seed, start, stream and directory only, so all that follows from their
    ledgers but for tokens is the same for each of them, and read off the first.
    """

    def __init__(self, trainers: Mapping[int, Trainer], states: Mapping[int, State]):
        """Put the states into lanes.

        A lane without a run computes what the first run does, for nobody.

        Args:
            trainers: lane -> run, ascending.
            states: lane -> its state, which is used up.
        """
        self._lanes = trainers
        self._trainers = list(trainers.values())
        self._lane_of = {trainer: lane for lane, trainer in trainers.items()}
        self._first = self._trainers[0]
        self._program = self._first.compiled_phases[0].program
        # Which lane's run each lane computes
        self._filled = [min(trainers)] * self._program.lanes
        for lane in trainers:
            self._filled[lane] = lane
        self._states = self._program.stack([states[lane] for lane in self._filled])

    def run(self) -> dict[int, Outcome]:
        """Train until the ledgers afford no further step; return lane -> outcome.

        Raises:
            As `kdjax.training.train.train`.
        """
        first = self._first
        clocks = [trainer.clock for trainer in self._trainers]
        for trainer in self._trainers:
            trainer.begin(clocks, profiles=trainer is first)
        policy = CheckpointPolicy(first.config.checkpoint.seconds)

        # As `Trainer.run`, with a step that is of all lanes
        for phase_number in range(len(first.compiled_phases)):
            inputs = self._step_inputs(phase_number, policy)
            while first.affords_step(phase_number):
                with first.profiled_step():
                    signals = self._step(phase_number, inputs)
                if first.evaluation_is_due():
                    self._each_with_state(Trainer.measure_held_out)
                if signals.stop:
                    self._each_with_state(Trainer.save_now)
                    raise Stopped(f"saved at step {first.ledger.steps}")
                if policy.is_due(signals):
                    self._each_with_state(Trainer.save)
                    policy.saved()
            self._end_phase(phase_number)

        outcomes: dict[Trainer, Outcome] = {}

        def finish(trainer: Trainer, state: State) -> None:
            outcomes[trainer] = trainer.finish(state)

        self._each_with_state(finish)
        return {lane: outcomes[trainer] for lane, trainer in self._lanes.items()}

    def _step_inputs(self, phase_number: int, policy: CheckpointPolicy) -> Iterator[StepInput]:
        """Return the stacked inputs of the steps of the phase."""
        program = self._first.compiled_phases[phase_number].program
        streams = []
        for lane in self._filled:
            streams.append(self._lanes[lane].compiled_phases[phase_number].stream)
        stream = StackedStream(streams, program)
        return step_inputs(
            program, stream, self._first.sequences_seen(phase_number), policy.signals
        )

    def _step(self, phase_number: int, inputs: Iterator[StepInput]) -> HostSignals:
        """Do one step of the phase in all lanes; return what all processes ask for."""
        first = self._first
        phase = first.compiled_phases[phase_number]
        # One stacked batch, and what each run reads of it
        with self._shared_clock("input"):
            step_input = next(inputs)
        counts = {lane: lane_counts(step_input.counts, lane) for lane in self._lanes}
        for lane, trainer in self._lanes.items():
            trainer.check_fresh(phase_number, counts[lane])

        # One step, charged to each ledger
        schedule_inputs = first.schedule_inputs(phase_number)
        with self._shared_clock("compute"):
            self._states, metrics = phase.program.step(
                self._states, phase.teacher, step_input.batch, schedule_inputs
            )
            for lane, trainer in self._lanes.items():
                fetch = functools.partial(fetch_lane, lane)
                trainer.charge(phase_number, counts[lane], schedule_inputs, metrics, fetch)
            self._each(Trainer.report)
        for trainer in self._trainers:
            trainer.read_clock_of_step()
        return step_input.signals

    def _end_phase(self, phase_number: int) -> None:
        """Tell who wants to know that the phase is done, before any step of the next."""
        if any(trainer.phase_ended for trainer in self._trainers):
            self._each_with_state(lambda trainer, state: trainer.end_phase(phase_number, state))

    def _each_with_state(self, act: Callable[[Trainer, State], None]) -> None:
        """Do something for every run with its state, once all steps are done."""
        with self._shared_clock("compute"):
            self._each(lambda trainer: trainer.report(steps_ahead=0))
        self._each(lambda trainer: act(trainer, self._state_of(trainer)))

    def _each(self, act: Callable[[Trainer], None]) -> None:
        """Do something for every run. Where one fails none goes on, but the others are saved."""
        failures: dict[Trainer, InputError] = {}
        for trainer in self._trainers:
            try:
                act(trainer)
            except InputError as e:
                failures[trainer] = e
        if not failures:
            return
        # A diverged run must not cost the others their steps.
        for trainer in self._trainers:
            if trainer not in failures:
                with suppress(InputError):
                    trainer.save(self._state_of(trainer))
        raise next(iter(failures.values()))

    def _state_of(self, trainer: Trainer) -> State:
        """Return the state in a run's lane."""
        return self._program.unstack(self._states, self._lane_of[trainer])

    def _shared_clock(self, kind: str) -> AbstractContextManager[None]:
        """Share the seconds of the block out evenly."""
        return shared([trainer.clock for trainer in self._trainers], kind)


def lane_counts(counts: BatchCounts, lane: int) -> BatchCounts:
    """Return what one lane reads of a stacked batch."""
    return BatchCounts(counts.fresh, counts.tokens[lane], counts.unique[lane], counts.masked[lane])


def fetch_lane(lane: int, metrics: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Bring the metrics of one lane to the host, from those of all."""
    return {name: values[lane] for name, values in jax.device_get(metrics).items()}
