"""What a budget is held against: its kind, and who pays for the teacher.

Busbridge et al. 2025 (arXiv 2502.08606) name four cases. The teacher may cost nothing (it is there,
and what it says is stored or shared by many), its forward passes, its training (what it says being
stored), or both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdjax.budget.price import PARTS, Price
from kdjax.config import BudgetConfig
from kdjax.errors import InputError

ACCOUNTS = (*PARTS, "teacher_cache", "teacher_training", "mlm_probe")
"""What a run causes: the parts of its steps, its shares of stored teacher outputs and of the
teacher's training, and the probe it ends with, where the recipe has that charged
(`evaluation.mlm_probe.charged`)."""

_STUDENT = ("student_forward", "student_backward", "objective", "optimizer", "mlm_probe")
_INFERENCE = ("teacher_forward", "teacher_cache")
_TRAINING = ("teacher_training",)
CASES: dict[str, tuple[str, ...]] = {
    "nothing": _STUDENT,
    "inference": (*_STUDENT, *_INFERENCE),
    "training": (*_STUDENT, *_TRAINING),
    "both": (*_STUDENT, *_INFERENCE, *_TRAINING),
}
"""What of the teacher is paid for -> the accounts that are charged."""


@dataclass(frozen=True)
class Budget:
    """What a run may spend.

    Attributes:
        kind: flops, tokens or hours.
        amount: in that unit; FLOPs and tokens are whole numbers.
        teacher: which case is enforced, a key of `CASES`.
        clock: the kinds of wall-clock that hours count.
    """

    kind: str
    amount: float
    teacher: str = "inference"
    clock: tuple[str, ...] = ("compute", "input")

    @staticmethod
    def of(config: BudgetConfig) -> Budget:
        """The budget of a recipe.

        Raises:
            InputError: none is set.
        """
        amount = getattr(config, config.kind)
        if not amount:
            raise InputError(
                "budget is not set, expected one of budget.flops, budget.tokens and budget.hours"
            )
        return Budget(
            config.kind,
            amount if config.kind == "hours" else int(amount),
            config.teacher,
            config.clock,
        )

    @staticmethod
    def flops(amount: float) -> Budget:
        """A budget of so many FLOPs, the teacher's forward passes included."""
        return Budget("flops", int(amount))

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Budget:
        """The inverse of `dataclasses.asdict`."""
        return Budget(**{**values, "clock": tuple(values["clock"])})

    @property
    def countable(self) -> bool:
        """Whether the number of steps follows from the price, and not from a clock."""
        return self.kind != "hours"

    def charges(self, spent: Mapping[str, int]) -> int:
        """Of FLOPs by account, those charged in this budget's case."""
        return charged(spent, self.teacher)

    def step(self, price: Price, positions: int) -> int:
        """What a step of so many positions takes of a budget of FLOPs or tokens."""
        return self.charges(price.parts()) if self.kind == "flops" else positions

    def __str__(self) -> str:
        return f"{self.amount:.4g} {'FLOPs' if self.kind == 'flops' else self.kind}"


def charged(spent: Mapping[str, int], case: str) -> int:
    """Of FLOPs by account, those charged in a case."""
    return sum(spent.get(account, 0) for account in CASES[case])
