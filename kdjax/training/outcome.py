"""What a run came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.budget.ledger import Ledger


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        params: the student's final parameters, on the host.
        ledger: account of what the run spent.
        curve: figures on held-out text along the budget: step, flops, share (of the budget),
            mlm_loss, …
        params_sha256: SHA-256 of the final parameters.
        journal_sha256: hash of the last entry of `ledger.jsonl`.
        side_by_side: runs that took the last steps at once, this one included.
    """

    params: Any
    ledger: Ledger
    curve: list[dict[str, float]]
    params_sha256: str
    journal_sha256: str
    side_by_side: int
