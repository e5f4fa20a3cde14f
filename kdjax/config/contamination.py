"""Settings of the check for evaluation rows within training text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdjax.config.values import check_range, expect


@dataclass(frozen=True)
class ContaminationConfig:
    """The check for the tasks' rows in the pretraining text and among one another."""

    check: Literal["off", "report", "refuse"] = "report"
    """`off`: nothing is looked for. `report`: what is found is printed and reported, and noted
    where it is more than `share`. `refuse`: that ends the command before a step is spent, and so
    does text that cannot be looked at."""
    share: float = 0.01
    """Share of the rows of a result that may be found without a note or a refusal, 0 to 1."""

    def __post_init__(self) -> None:
        # A recipe's words are checked as it is read, a program's only here.
        words = ("off", "report", "refuse")
        name = "evaluation.contamination.check"
        expect(self.check in words, name, repr(self.check), "off, report or refuse")
        check_range(self, "evaluation.contamination.", 0, 1, "share")
