"""The loop of training: steps, evaluations and checkpoints, until the budget is spent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager

from kdjax.errors import Stopped
from kdjax.training.checkpoints.policy import CheckpointPolicy
from kdjax.training.input_pipeline import StepInput
from kdjax.training.step import State


class TrainingLoop(ABC):
    """The loop of training: of one run (`Trainer`), or of several at once (`VmappedTrainer`).

    Attributes:
        phase_count: number of phases.
        policy: decision when checkpoints are saved.
    """

    def __init__(self, phase_count: int, checkpoint_seconds: float):
        self.phase_count = phase_count
        self.policy = CheckpointPolicy(checkpoint_seconds)

    def run(self, state: State) -> State:
        """Train until the budget affords no further step.

        Args:
            state: what training changes, of the run or of all runs; used up.

        Returns:
            The state after the last step.

        Raises:
            Diverged: a loss is not finite.
            InputError: text would repeat, a journal is damaged, or no checkpoint could be written
                for `config.checkpoint.patience`.
            Stopped: the process was told to stop, and has saved.
        """
        for phase_number in range(self.phase_count):
            inputs = self.step_inputs(phase_number)
            # Begin no step that would end beyond the phase's share of the budget.
            while self.affords_step(phase_number):
                with self.profiled_step():
                    step_input = self.next_input(inputs)
                    state = self.take_step(phase_number, step_input, state)

                # Evaluation comes first, so a checkpoint of this step has its point of the curve.
                if self.evaluation_is_due():
                    self.measure_held_out(state)
                # So do weights that stay: a run that goes on from here does not pass them again.
                if self.snapshot_is_due():
                    self.keep_snapshot(state)
                if self.trunk_ends():
                    self.keep_trunk(state)
                if step_input.signals.stop:
                    self.save_now(state)
                    raise Stopped(f"saved at step {self.steps}")
                if self.policy.is_due(step_input.signals):
                    self.save(state)
                    self.policy.saved()

            # Before any step of the next phase is taken
            self.end_phase(phase_number, state)
        return state

    @property
    @abstractmethod
    def steps(self) -> int:
        """Return the number of steps done."""

    @abstractmethod
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        """Return the inputs of the phase's steps, from the next one on."""

    @abstractmethod
    def affords_step(self, phase_number: int) -> bool:
        """Return whether a step of the phase ends before its share of the budget."""

    @abstractmethod
    def profiled_step(self) -> AbstractContextManager[None]:
        """Return a block in which the next step is captured, if the settings name it."""

    @abstractmethod
    def next_input(self, inputs: Iterator[StepInput]) -> StepInput:
        """Wait for the next input, on the stopwatch."""

    @abstractmethod
    def take_step(self, phase_number: int, step_input: StepInput, state: State) -> State:
        """Do a step of the phase, charge it, and report the step before; return the new state."""

    @abstractmethod
    def evaluation_is_due(self) -> bool:
        """Return whether the last step reached one of the evenly spaced evaluations."""

    @abstractmethod
    def measure_held_out(self, state: State) -> None:
        """Measure the student on held-out text, unless that was done after this very step."""

    @abstractmethod
    def snapshot_is_due(self) -> bool:
        """Return whether the last step reached one of the numbers of words at which the student is
        kept."""

    @abstractmethod
    def keep_snapshot(self, state: State) -> None:
        """Keep the student of each run that reached one of its numbers of words by the last step.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def trunk_ends(self) -> bool:
        """Return whether the last step was the last of a trunk that larger budgets go on from."""

    @abstractmethod
    def keep_trunk(self, state: State) -> None:
        """Keep the whole state, for runs of larger budgets to go on from.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def save(self, state: State) -> None:
        """Begin a checkpoint (`CheckpointRetry.save`)."""

    @abstractmethod
    def save_now(self, state: State) -> None:
        """Write a checkpoint and wait for it, since the process is about to stop.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def end_phase(self, phase_number: int, state: State) -> None:
        """Call `phase_ended` for the phase, unless the run is in a later one already."""
