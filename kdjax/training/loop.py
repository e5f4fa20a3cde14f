"""The loop of training: steps, evaluations and checkpoints, until the budget is spent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from kdjax.errors import Stopped
from kdjax.parallel.host_sums import HostSignals
from kdjax.training.checkpoints.policy import CheckpointPolicy
from kdjax.training.due_work import DueWork
from kdjax.training.input_pipeline import StepInput
from kdjax.training.run_account import RunAccount
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
            while self.account.affords_step(phase_number):
                state, signals = self.take_step(phase_number, inputs, state)

                # All that is due comes before the checkpoint of this step: a run that goes on from
                # there does not pass the step again.
                due = self.due_work()
                if due.evaluation:
                    self.measure_held_out(state)
                if due.snapshot:
                    self.keep_snapshots(state)
                if due.trunk:
                    self.keep_trunk(state)
                if signals.stop:
                    self.write_checkpoint(state)
                    raise Stopped(f"saved at step {self.account.ledger.steps}")
                if self.policy.checkpoint_is_due(signals):
                    self.begin_checkpoint(state)
                    self.policy.count_checkpoint()

            # Before any step of the next phase is taken
            self.end_phase(phase_number, state)
        return state

    @property
    @abstractmethod
    def account(self) -> RunAccount:
        """Return the account of the run, or of one that stands for all."""

    @abstractmethod
    def step_inputs(self, phase_number: int) -> Iterator[StepInput]:
        """Return the inputs of the phase's steps, from the next one on."""

    @abstractmethod
    def take_step(
        self, phase_number: int, inputs: Iterator[StepInput], state: State
    ) -> tuple[State, HostSignals]:
        """Do a step of the phase, charge it, and report the step before.

        Args:
            phase_number: number of the phase.
            inputs: inputs of its steps, of which the next is taken.
            state: state before the step; used up.

        Returns:
            The state after the step, and what the processes ask for.
        """

    @abstractmethod
    def due_work(self) -> DueWork:
        """Return what is due after the last step, of the run or of any."""

    @abstractmethod
    def measure_held_out(self, state: State) -> None:
        """Measure the student on held-out text, unless that was done after this very step."""

    @abstractmethod
    def keep_snapshots(self, state: State) -> None:
        """Keep the student of each run that reached one of its numbers of words by the last step.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def keep_trunk(self, state: State) -> None:
        """Keep the whole state, for runs of larger budgets to go on from.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def begin_checkpoint(self, state: State) -> None:
        """Begin to write a checkpoint, while training goes on (`CheckpointRetry.save`)."""

    @abstractmethod
    def write_checkpoint(self, state: State) -> None:
        """Write a checkpoint and wait for it, since the process is about to stop.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def end_phase(self, phase_number: int, state: State) -> None:
        """Call `phase_ended` for the phase, unless the run is in a later one already."""
