"""What a budget that nobody has spent yet buys an arm: steps, tokens, epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kdjax import forecast
from kdjax.arms.charges import own_charges, per_run_share, teacher_flops
from kdjax.arms.recipe_arms import batch_shape_of
from kdjax.budget.accounting import CASES, Budget
from kdjax.budget.ledger import PhaseSpan
from kdjax.budget.price import Price
from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.models import abstract_params, count_params
from kdjax.plan.schema import Bought
from kdjax.training.arm import Arm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spending:
    """An arm with its prices and text, which say what a budget buys it.

    Attributes:
        arm: arm that spends.
        prices: price of a step of each phase.
        config: recipe of the plan.
        fill: share of positions that hold tokens, not padding.
        unique: tokens of text there are; infinity where the text has no end.
    """

    arm: Arm
    prices: tuple[Price, ...]
    config: Config
    fill: float
    unique: float

    @property
    def parameters(self) -> int:
        """Return the parameters of the student, without embeddings."""
        return count_params(abstract_params(self.arm.student_config)).others

    def spans(self, flops: float, case: str) -> tuple[PhaseSpan, ...]:
        """Return the arm's phases in a budget.

        Args:
            flops: budget in FLOPs.
            case: way to pay for the teacher.

        Raises:
            InputError: a phase without a single step.
        """
        # A charged MLM probe, calibration and a share of the teacher's training leave less for
        # steps.
        before = own_charges(self.config, self.arm)
        if self.arm.needs_teacher and "teacher_training" in CASES[case]:
            before["teacher_training"] = per_run_share(
                teacher_flops(self.config, self.arm), self.config.budget.students
            )

        # The budget itself is in FLOPs, whatever kind the recipe enforces.
        budget = replace(Budget.flops(flops), teacher_case=case)
        return self.arm.schedule_phases(budget, self.prices, batch_shape_of(self.config), before)

    def affords(self, flops: float, case: str) -> bool:
        """Return whether a budget buys at least one step of every phase.

        Args:
            flops: budget in FLOPs.
            case: way to pay for the teacher.
        """
        try:
            self.spans(flops, case)
        except InputError:
            return False
        return True

    def tokens(self, flops: float, case: str) -> float:
        """Compute the tokens that the arm sees in a budget, padding not counted.

        Args:
            flops: budget in FLOPs.
            case: way to pay for the teacher.

        Raises:
            InputError: a phase without a single step.
        """
        spans = self.spans(flops, case)
        return sum(span.steps * span.tokens_per_step for span in spans) * self.fill

    def point(self, flops: Array, case: str) -> forecast.Point:
        """Return the model size and the tokens at which the arm's law is evaluated for budgets.

        Args:
            flops: `[m]`: budgets in FLOPs.
            case: way to pay for the teacher.

        Raises:
            InputError: a phase without a single step.
        """
        tokens = np.array([self.tokens(budget, case) for budget in flops])
        return forecast.Point(self.parameters, tokens, self.unique)

    def bought(self, flops: float, case: str) -> Bought | None:
        """Compute the steps and tokens that a budget buys; None where that is less than a step.

        Args:
            flops: budget in FLOPs.
            case: way to pay for the teacher.
        """
        if not self.affords(flops, case):
            return None
        tokens = self.tokens(flops, case)
        return Bought(
            flops=flops,
            steps=self.spans(flops, case)[-1].stop,
            tokens=tokens,
            epochs=None if np.isinf(self.unique) else tokens / self.unique,
            effective_tokens=float(forecast.effective_tokens(tokens, self.unique)),
        )
