"""Settings of the budget: what a run may spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdjax.config.values import FLOPS_LIMIT, TOKENS_LIMIT, check_range
from kdjax.errors import InputError

KINDS = ("flops", "tokens", "hours")
"""The kinds of budget."""


@dataclass(frozen=True)
class BudgetConfig:
    """What each run may spend: FLOPs, tokens or hours; one of them is set."""

    flops: float = 0.0
    """FLOPs of the training steps, by XLA's count of the reference program; `teacher` says which of
    the teacher's FLOPs count. Up to 1e30; 0: another kind is set."""
    tokens: float = 0.0
    """Tokens that the student sees: batch x length a step, padding included. Up to 1e18; 0: another
    kind is set."""
    hours: float = 0.0
    """Wall-clock hours of what `clock` names. Up to 1e6; 0: another kind is set."""
    clock: tuple[Literal["compute", "input", "compile", "checkpoint", "evaluation"], ...] = (
        "compute",
        "input",
    )
    """Kinds of wall-clock that a budget of hours counts: steps, waiting for batches, compiling,
    saving, evaluating during training. By default only what every step takes."""
    teacher: Literal["nothing", "inference", "training", "both"] = "inference"
    """What of the teacher a budget of FLOPs pays for: nothing, its forward passes or their stored
    outputs (the default, as in the paper), its training, or both. These are the four cases of
    Busbridge et al. 2025, arXiv 2502.08606."""
    students: int = 1
    """Number of students that share the cost of the teacher's training, 1 to 1,000,000,000."""

    def __post_init__(self) -> None:
        limits = {"flops": FLOPS_LIMIT, "tokens": TOKENS_LIMIT, "hours": 1e6}
        for name, limit in limits.items():
            check_range(self, "budget.", 0, limit, name)
        check_range(self, "budget.", 1, 10**9, "students")
        # One kind: with two, it would depend on the arm which of them ends a run.
        amounts = {name: getattr(self, name) for name in KINDS if getattr(self, name)}
        if len(amounts) > 1:
            both = " and ".join(f"budget.{name} {amount:g}" for name, amount in amounts.items())
            raise InputError(
                f"{both} are both set, expected one of flops, tokens and hours, and 0 for the "
                "others"
            )
        if not self.clock:
            raise InputError(
                "budget.clock is empty, expected at least one of compute, input, compile, …"
            )

    @property
    def kind(self) -> str:
        """Return the kind of budget that is set; flops where none is."""
        return next((name for name in KINDS if getattr(self, name)), "flops")
