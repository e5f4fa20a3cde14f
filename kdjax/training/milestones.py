"""What a step of a run reached: an evaluation, the words of a snapshot, the end of its trunk."""

from __future__ import annotations

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.training.learning_rate import decays
from kdjax.training.run_spec import RunSpec
from kdjax.training.trunk import evaluation_reached


class Milestones:
    """The milestones of one run, read off its ledgers before and after a step."""

    def __init__(self, spec: RunSpec):
        """Take what the run is made of."""
        self._spec = spec

    def evaluation(self, before: Ledger, now: Ledger) -> bool:
        """Return whether a step reached an evaluation of the run, or of a larger budget that goes
        on from its trunk."""
        if self.own_evaluation(before, now):
            return True
        trunk = self._spec.trunk
        if trunk is None or self._decays(before):
            return False
        return any(self._evaluation(budget, before, now) for budget in trunk.larger)

    def own_evaluation(self, before: Ledger, now: Ledger) -> bool:
        """Return whether a step reached one of the evaluations spaced evenly over the run's own
        budget."""
        return self._evaluation(self._spec.budget, before, now)

    def words(self, before: Ledger, now: Ledger) -> list[int]:
        """List the numbers of words, of those at which the student is kept, that a step reached."""
        if self._spec.snapshots is None:
            return []
        return self._spec.snapshots.reached(before.tokens, now.tokens)

    def trunk_end(self, before: Ledger, now: Ledger) -> bool:
        """Return whether a step was the last before the decay, of a run whose trunk is shared."""
        if self._spec.trunk is None:
            return False
        return self._decays(now) and not self._decays(before)

    def _evaluation(self, budget: Budget, before: Ledger, now: Ledger) -> bool:
        """Return whether a step reached one of the evaluations spaced evenly over a budget."""
        return evaluation_reached(before.used, now.used, budget, self._spec.config.evaluations)

    def _decays(self, ledger: Ledger) -> bool:
        """Return whether the step after a ledger has left the schedule's peak."""
        optimizer = self._spec.compiled_phases[0].phase.optimizer
        return decays(optimizer, ledger.training_share)
