"""Several seeds of an arm trained at once: one lane each in a vmapped step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
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


def train_vmapped(restored: Sequence[RestoredRun]) -> list[Outcome]:
    """Train runs until their ledgers afford no further step.

    Those that checkpoints left at different steps go on one group after another.

    Args:
        restored: the runs, one for each lane of their programs.

    Raises:
        As `kdjax.training.train.train`.
    """
    # Runs that were killed while their checkpoints were written may be at different steps.
    outcomes: dict[int, Outcome] = {}
    for step in sorted({run.ledger.steps for run in restored}):
        group = {lane: run for lane, run in enumerate(restored) if run.ledger.steps == step}
        with ExitStack() as stack:
            clocks = {lane: Stopwatch(run.ledger.seconds) for lane, run in group.items()}
            trainers = {}
            for lane, run in group.items():
                # Only one directory gets the profile of a step, which is of all lanes.
                trainer = Trainer(
                    run, clocks[lane], list(clocks.values()), profiles=lane == min(group)
                )
                trainers[lane] = stack.enter_context(trainer)
            vmapped_trainer = VmappedTrainer(trainers)
            # Raised when no run is left; one that diverges before is its own outcome.
            with suppress(Diverged):
                vmapped_trainer.run()
                vmapped_trainer.finish()
            outcomes |= vmapped_trainer.outcomes
    return [outcomes[lane] for lane in range(len(restored))]


class VmappedTrainer(TrainingLoop):
    """Runs at the same step that go on at once, a lane each.

    Each is a `Trainer` with a ledger, journal, metrics and checkpoints of its own, as if it were
    alone. They differ in seed, start, stream and directory only, so all that follows from their
    ledgers but for tokens is the same for each of them, and read off the first.
    """

    def __init__(self, trainers: Mapping[int, Trainer]):
        """Put the states into lanes.

        A lane without a run computes what the first run does, for nobody.

        Args:
            trainers: lane -> run, ascending; their states are used up.
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
        self._states = self._program.stack([trainers[lane].state for lane in self._filled])
        for trainer in trainers.values():
            del trainer.state  # its memory: between steps a run has its state in its lane alone

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
        seen = self._first.sequences_seen(phase_number)
        return step_inputs(program, stream, seen, self.policy.signals)

    @override
    def affords_step(self, phase_number: int) -> bool:
        return self._first.affords_step(phase_number)

    @override
    def profiled_step(self) -> AbstractContextManager[None]:
        return self._first.profiled_step()

    @override
    def next_input(self, inputs: Iterator[StepInput]) -> StepInput:
        with self._shared_clock("input"):
            return next(inputs)

    @override
    def take_step(self, phase_number: int, step_input: StepInput) -> None:
        phase = self._first.spec.compiled_phases[phase_number]
        counts = {lane: lane_counts(step_input.counts, lane) for lane in self._lanes}
        for lane, trainer in self._lanes.items():
            trainer.check_fresh(phase_number, counts[lane])

        # One step, charged to each ledger
        schedule_inputs = self._first.schedule_inputs(phase_number)
        with self._shared_clock("compute"):
            self._states, metrics = phase.program.step(
                self._states, phase.teacher, step_input.batch, schedule_inputs
            )
            for lane, trainer in self._lanes.items():
                fetch = functools.partial(fetch_lane, lane)
                trainer.charge(phase_number, counts[lane], schedule_inputs, metrics, fetch)
            self._each(Trainer.report)
        for trainer in self._lanes.values():
            trainer.read_clock_of_step()

    @override
    def evaluation_is_due(self) -> bool:
        return self._first.evaluation_is_due()

    @override
    def measure_held_out(self) -> None:
        self._each_with_state(Trainer.measure_held_out)

    @override
    def save(self) -> None:
        self._each_with_state(Trainer.save)

    @override
    def save_now(self) -> None:
        self._each_with_state(Trainer.save_now)

    @override
    def end_phase(self, phase_number: int) -> None:
        if self._first.spec.phase_ended is not None:
            self._each_with_state(lambda trainer: trainer.end_phase(phase_number))

    def finish(self) -> None:
        """Finish every run that goes on.

        Raises:
            As `kdjax.training.train.train`; Diverged: none is left.
        """

        def finish(trainer: Trainer) -> None:
            self.outcomes[self._lane_of[trainer]] = trainer.finish()

        self._each_with_state(finish)

    def _each_with_state(self, act: Callable[[Trainer], None]) -> None:
        """Report all steps, then call a function on every run, with its state in its trainer."""
        with self._shared_clock("compute"):
            self._each(lambda trainer: trainer.report(last_too=True))

        def act_with_state(trainer: Trainer) -> None:
            with self._state_given_to(trainer):
                act(trainer)

        self._each(act_with_state)

    def _each(self, act: Callable[[Trainer], None]) -> None:
        """Do something for every run that goes on.

        Raises:
            Diverged: every run has diverged. One that does so before leaves the others.
            InputError: anything else that goes wrong for one run; the others are saved.
        """
        failures: dict[Trainer, InputError] = {}
        for lane, trainer in list(self._lanes.items()):
            try:
                act(trainer)
            except Diverged as e:
                self.outcomes[lane] = trainer.abandon(e)
                del self._lanes[lane]
                if not self._lanes:
                    raise
            except InputError as e:
                failures[trainer] = e
        if not failures:
            return
        # One run's fault must not cost the others their steps.
        for trainer in self._lanes.values():
            if trainer not in failures:
                with suppress(InputError), self._state_given_to(trainer):
                    trainer.save()
        raise next(iter(failures.values()))

    @contextmanager
    def _state_given_to(self, trainer: Trainer) -> Iterator[None]:
        """Give a trainer its run's state, from its lane, for the block."""
        trainer.state = self._program.unstack(self._states, self._lane_of[trainer])
        try:
            yield
        finally:
            del trainer.state

    def _shared_clock(self, kind: str) -> AbstractContextManager[None]:
        """Count the seconds of the block, in even shares, on every run's stopwatch."""
        return shared([trainer.clock for trainer in self._lanes.values()], kind)


def lane_counts(counts: BatchCounts, lane: int) -> BatchCounts:
    """Return the counts of one lane, from those of a stacked batch."""
    return BatchCounts(counts.fresh, counts.tokens[lane], counts.unique[lane], counts.masked[lane])


def fetch_lane(lane: int, metrics: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Bring the metrics of one lane to the host, from those of all."""
    return {name: values[lane] for name, values in jax.device_get(metrics).items()}
