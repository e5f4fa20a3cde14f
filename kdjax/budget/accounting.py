"""What a budget is held against: its kind, and who pays for the teacher.

Busbridge et al. 2025 (arXiv 2502.08606) name four cases. The teacher may cost nothing (it is there,
and its outputs are stored or shared by many), its forward passes, its training (its outputs being
stored), or both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdjax.budget.price import PARTS, Price
from kdjax.config import BudgetConfig
from kdjax.errors import InputError
from kdjax.storage.typed_json import stored_as

EVERY_LEDGER = (*PARTS, "teacher_cache", "teacher_training", "mlm_probe")
"""Accounts that every ledger names: the parts of a run's steps, its shares of stored teacher
outputs and of the teacher's training, and the probe it ends with, where the recipe has that charged
(`evaluation.mlm_probe.charged`)."""
ACCOUNTS = (*EVERY_LEDGER, "calibration")
"""What a run's FLOPs are booked under. A ledger names `calibration`, the teacher's forward passes
that say what a pruned student keeps, only where there were some."""

_STUDENT = ("student_forward", "student_backward", "objective", "optimizer", "mlm_probe")
_INFERENCE = ("teacher_forward", "teacher_cache", "calibration")
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
        amount: size of the budget in its unit; FLOPs and tokens are whole numbers.
        teacher_case: case of teacher accounting that is enforced, a key of `CASES`.
        clock: the kinds of wall-clock that a budget of hours counts.
    """

    kind: str
    amount: float
    teacher_case: str = field(default="inference", metadata=stored_as("teacher"))
    clock: tuple[str, ...] = ("compute", "input")

    @staticmethod
    def from_config(config: BudgetConfig) -> Budget:
        """Make the budget of a recipe.

        Raises:
            InputError: none is set.
        """
        amount = getattr(config, config.kind)
        if not amount:
            raise InputError(
                "budget is not set, expected one of budget.flops, budget.tokens and budget.hours"
            )
        # FLOPs outgrow a double's 53 bits, so they are counted in Python's integers.
        if config.kind != "hours":
            amount = int(amount)
        return Budget(config.kind, amount, config.teacher, config.clock)

    @staticmethod
    def flops(amount: float) -> Budget:
        """Make a budget in FLOPs that pays for the teacher's forward passes."""
        return Budget("flops", int(amount))

    @property
    def countable(self) -> bool:
        """Return whether the number of steps follows from the price, and not from a clock."""
        return self.kind != "hours"

    def charges(self, spent: Mapping[str, int]) -> int:
        """Return the part of FLOPs by account that is charged in this budget's case."""
        return charged_flops(spent, self.teacher_case)

    def step_cost(self, price: Price, tokens_per_step: int) -> int:
        """Return the amount that one step takes of a budget in FLOPs or tokens, in that unit.

        Args:
            price: FLOPs of the step, by part; of these the parts that this budget charges count.
            tokens_per_step: positions of a batch, padding included.
        """
        if self.kind == "tokens":
            return tokens_per_step
        return self.charges(price.parts())

    def __str__(self) -> str:
        unit = "FLOPs" if self.kind == "flops" else self.kind
        return f"{self.amount:.4g} {unit}"


def charged_flops(spent: Mapping[str, int], case: str) -> int:
    """Sum the FLOPs of the accounts that are charged in one case of teacher accounting.

    Args:
        spent: account of a ledger, or part of a step -> FLOPs.
        case: key of `CASES`: nothing, inference, training or both of the teacher is charged.
    """
    return sum(spent.get(account, 0) for account in CASES[case])
