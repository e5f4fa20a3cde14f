"""The end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.budget.ledger import Ledger
from kdjax.budget.shared_steps import SharedSteps
from kdjax.errors import Diverged


@dataclass(frozen=True)
class Outcome:
    """A run that has ended: its budget is spent, or it has diverged.

    Attributes:
        params: the student's final parameters, on the host; None of a run that has diverged.
        ledger: account of what the run spent, to the step that diverged if one has.
        curve: figures on held-out text along the budget: step, flops, share (of the budget),
            mlm_loss, …
        params_sha256: SHA-256 of the final parameters; None of a run that has diverged.
        journal_sha256: hash of the last entry of `ledger.jsonl`.
        side_by_side: runs that took the last steps at once, this one included.
        diverged: how it diverged, for people; None: it did not.
        shared: what it has in common with a run of a smaller budget, which paid for it; None: it
            began with its first step.
    """

    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]
    params_sha256: str | None
    journal_sha256: str
    side_by_side: int
    diverged: str | None = None
    shared: SharedSteps | None = None

    def require_finite(self) -> Outcome:
        """Return the outcome itself.

        Raises:
            Diverged: the run has diverged.
        """
        if self.diverged is not None:
            raise Diverged(self.diverged)
        return self
