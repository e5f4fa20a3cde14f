"""What a step of a run reached: an evaluation, the words of a snapshot, the end of its trunk."""

from __future__ import annotations

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.training.learning_rate import has_left_peak
from kdjax.training.run_account import RunAccount
from kdjax.training.run_spec import RunSpec
from kdjax.training.trunk import evaluation_reached


class Milestones:
    """The milestones of one run, read off its ledgers before and after the last step."""

    def __init__(self, spec: RunSpec, account: RunAccount):
        """Take what the run is made of.

        Args:
            spec: what the run is made of.
            account: its ledgers.
        """
        self._spec = spec
        self._account = account

    def evaluation_reached(self) -> bool:
        """Return whether the last step reached an evaluation of the run, or of a larger budget that
        goes on from its trunk."""
        if self.own_evaluation_reached():
            return True
        trunk = self._spec.trunk
        if trunk is None or self._decays_after(self._account.before_step):
            return False
        return any(self._evaluation_reached(budget) for budget in trunk.larger)

    def own_evaluation_reached(self) -> bool:
        """Return whether the last step reached one of the evaluations spaced evenly over the run's
        own budget."""
        return self._evaluation_reached(self._spec.budget)

    def words_reached(self) -> list[int]:
        """List the numbers of words, of those at which the student is kept, that the last step
        reached."""
        if self._spec.snapshots is None:
            return []
        before = self._account.before_step
        return self._spec.snapshots.reached(before.tokens, self._account.ledger.tokens)

    def trunk_end_reached(self) -> bool:
        """Return whether the last step was the last before the decay, of a run whose trunk is
        shared."""
        if self._spec.trunk is None or self._decays_after(self._account.before_step):
            return False
        return self._decays_after(self._account.ledger)

    def _evaluation_reached(self, budget: Budget) -> bool:
        """Return whether the last step reached one of the evaluations spaced evenly over a
        budget."""
        before = self._account.before_step.used
        now = self._account.ledger.used
        return evaluation_reached(before, now, budget, self._spec.config.evaluations)

    def _decays_after(self, ledger: Ledger) -> bool:
        """Return whether the step after a ledger has left the schedule's peak."""
        optimizer = self._spec.compiled_phases[0].phase.optimizer
        return has_left_peak(optimizer, ledger.training_share)
