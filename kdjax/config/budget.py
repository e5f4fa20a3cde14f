"""What a run may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kdjax.errors import InputError

KINDS = ("flops", "tokens", "hours")
"""The kinds of budget."""


@dataclass(frozen=True)
class BudgetConfig:
    """What each run may spend: FLOPs, tokens or hours, one of them."""

    flops: float = 0.0
    """FLOPs of the training steps by XLA's count of the reference program; which of the teacher's
    count: `teacher`."""
    tokens: float = 0.0
    """Tokens the student sees: batch x length a step, padding included."""
    hours: float = 0.0
    """Wall-clock hours of what `clock` names."""
    clock: tuple[Literal["compute", "input", "compile", "checkpoint", "evaluation"], ...] = (
        "compute",
        "input",
    )
    """What a budget of hours counts: steps, waiting for batches, compiling, saving, evaluating
    along the way."""
    teacher: Literal["nothing", "inference", "training", "both"] = "inference"
    """What of the teacher a budget of FLOPs pays for: nothing, its forward passes (or their stored
    outputs), its training, or both (the four cases of Busbridge et al. 2025, arXiv 2502.08606)."""
    students: int = 1
    """Students that share what the teacher's training cost."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in KINDS if getattr(self, name)}
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise InputError(f"budget.{name} is {value}, expected a number above 0")
        if len(given) > 1:
            named = " and ".join(f"budget.{name} {value:g}" for name, value in given.items())
            raise InputError(
                f"{named} are both set, expected one of flops, tokens and hours, and 0 for the "
                "others"
            )
        if self.students < 1:
            raise InputError(f"budget.students is {self.students}, expected at least 1")
        if not self.clock:
            raise InputError(
                "budget.clock is empty, expected at least one of compute, input, compile, …"
            )

    @property
    def kind(self) -> str:
        """Which kind of budget is set; flops where none is."""
        return next((name for name in KINDS if getattr(self, name)), "flops")
