"""What is due after a step of a run: an evaluation, snapshots, its trunk."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.budget.accounting import Budget
from kdjax.budget.ledger import Ledger
from kdjax.training.learning_rate import has_left_peak
from kdjax.training.run_account import RunAccount
from kdjax.training.run_spec import RunSpec
from kdjax.training.trunk import evaluation_is_due


@dataclass(frozen=True)
class DueWork:
    """What is due after the last step of a run, besides a checkpoint.

    Attributes:
        own_evaluation: whether it reached one of the evaluations that are spaced evenly over the
            run's own budget.
        larger_evaluation: whether it reached one of a larger budget that goes on from its trunk.
        snapshot_words: numbers of words it reached, of those at which the student is kept.
        trunk: whether it was the last before the decay, of a run whose trunk is shared.
    """

    own_evaluation: bool
    larger_evaluation: bool
    snapshot_words: list[int]
    trunk: bool

    @property
    def evaluation(self) -> bool:
        """Return whether the student is to be measured on held-out text."""
        return self.own_evaluation or self.larger_evaluation

    @property
    def snapshot(self) -> bool:
        """Return whether the student is to be kept."""
        return bool(self.snapshot_words)


def due_work(spec: RunSpec, account: RunAccount) -> DueWork:
    """Return what is due after the last step of a run, read off its ledgers before and after it.

    Args:
        spec: what the run is made of.
        account: its ledgers.
    """

    def is_evaluation_of(budget: Budget) -> bool:
        used_before = account.before_step.used
        return evaluation_is_due(used_before, account.ledger.used, budget, spec.config.evaluations)

    def decays_after(ledger: Ledger) -> bool:
        optimizer = spec.compiled_phases[0].phase.optimizer
        return has_left_peak(optimizer, ledger.training_share)

    snapshot_words: list[int] = []
    if spec.snapshots is not None:
        snapshot_words = spec.snapshots.reached(account.before_step.tokens, account.ledger.tokens)

    # A step of the decay is none of the trunk.
    larger_evaluation = False
    trunk = False
    if spec.trunk is not None and not decays_after(account.before_step):
        larger_evaluation = any(is_evaluation_of(budget) for budget in spec.trunk.larger)
        trunk = decays_after(account.ledger)
    return DueWork(is_evaluation_of(spec.budget), larger_evaluation, snapshot_words, trunk)
