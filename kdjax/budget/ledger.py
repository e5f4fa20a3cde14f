"""What a run has spent, by part, whether it can afford another step, and how its phases lie in its
budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from kdjax.budget.accounting import ACCOUNTS, Budget
from kdjax.budget.price import Price
from kdjax.errors import InputError


@dataclass(frozen=True)
class PhaseSpan:
    """A phase as it lies in a budget.

    Attributes:
        price: of one of its steps.
        first: number of its first step.
        steps: how many it has.
        positions: of one of its steps: batch x length.
    """

    price: Price
    first: int
    steps: int
    positions: int

    @property
    def stop(self) -> int:
        """Number of the step after its last."""
        return self.first + self.steps


def schedule_phases(
    budget: Budget,
    phases: Sequence[tuple[float, Price]],
    positions: int | Sequence[int],
    upfront: Mapping[str, int] | None = None,
    setting: str = "budget.flops",
) -> tuple[PhaseSpan, ...]:
    """Lays phases out in a budget: none spends beyond its end, and less than one step is left over
    at the last.

    Args:
        budget: of FLOPs or tokens.
        phases: of each, the share of the budget at which it ends (the last: 1) and the price of its
            steps.
        positions: of a step, batch x length: of all phases, or of each.
        upfront: FLOPs spent before the first step, by account.
        setting: where the budget was set, for messages.

    Raises:
        InputError: a phase without a single step.
    """
    spans: list[PhaseSpan] = []
    used = Ledger.open(budget, len(phases), upfront).used
    first = 0
    each = [positions] * len(phases) if isinstance(positions, int) else positions
    for n, ((until, price), size) in enumerate(zip(phases, each, strict=True), start=1):
        a_step = budget.step(price, size)
        steps = (math.floor(Fraction(until) * Fraction(budget.amount)) - int(used)) // a_step
        if steps < 1:
            before = f" after {used:.4g} spent before" if used else ""
            which = f" of phase {n} (it ends at {until:g})" if len(phases) > 1 else ""
            raise InputError(
                f"{setting} is {budget.amount:.4g}, expected at least the price of one "
                f"step{which}{before}, "
                f"{a_step:.4g}"
            )
        spans.append(PhaseSpan(price, first, steps, size))
        used = used + steps * a_step
        first = first + steps
    return tuple(spans)


@dataclass(frozen=True)
class Ledger:
    """The account of one run; it travels in the checkpoint.

    Attributes:
        budget: what the run may spend.
        spent: FLOPs that the run has caused, by account (`ACCOUNTS`), whether they are charged or
            not.
        phases: optimiser steps done in each phase.
        positions: places of the sequences seen, padding included.
        tokens: tokens seen, padding not counted.
        unique_tokens: those of them seen for the first time.
        masked_tokens: those of them that were masked: what a masked language model predicts.
        cache_bytes: size of the stored teacher outputs that the run reads.
        seconds: wall-clock by kind (compute, input, compile, evaluation, checkpoint), over all
            restarts.
        step_seconds: what the last step took, of what the budget's clock counts.
    """

    budget: Budget
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 0))
    phases: tuple[int, ...] = (0,)
    positions: int = 0
    tokens: int = 0
    unique_tokens: int = 0
    masked_tokens: int = 0
    cache_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    step_seconds: float = 0.0

    @staticmethod
    def open(
        budget: Budget,
        phases: int = 1,
        upfront: Mapping[str, int] | None = None,
        cache_bytes: int = 0,
    ) -> Ledger:
        """A new account, from which what was spent on the teacher before is paid at once."""
        spent = {**dict.fromkeys(ACCOUNTS, 0), **(upfront or {})}
        return Ledger(budget, spent, (0,) * phases, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        return sum(self.phases)

    @property
    def total(self) -> int:
        """FLOPs charged, in the case of the budget."""
        return self.budget.charges(self.spent)

    @property
    def used(self) -> float:
        """What is used up, in the budget's unit."""
        if self.budget.kind == "hours":
            return self.counted_seconds / 3600
        return self.total if self.budget.kind == "flops" else self.positions

    @property
    def counted_seconds(self) -> float:
        """Wall-clock of the kinds that the budget's clock counts."""
        return sum(self.seconds.get(kind, 0.0) for kind in self.budget.clock)

    @property
    def share(self) -> float:
        """The share of the budget that is used up."""
        return self.used / self.budget.amount

    @property
    def training_amount(self) -> float:
        """What training may spend, in the budget's unit: all but a charged MLM probe."""
        return self.budget.amount - self._set_aside

    @property
    def training_share(self) -> float:
        """The share of `training_amount` that is used up.

        Learning rate and schedules go by it: they begin at 0 although the probe, which comes last,
            is charged first.
        """
        return (self.used - self._set_aside) / self.training_amount

    @property
    def _set_aside(self) -> int:
        return self.spent.get("mlm_probe", 0) if self.budget.kind == "flops" else 0

    @property
    def remaining(self) -> float:
        """What is left, in the budget's unit."""
        return self.budget.amount - self.used

    def step(self, price: Price, positions: int) -> float:
        """What the next step takes, in the budget's unit; of hours, as long as the last one
        took."""
        return (
            self.budget.step(price, positions)
            if self.budget.countable
            else self.step_seconds / 3600
        )

    def affords(self, price: Price, positions: int, until: float = 1.0) -> bool:
        """Whether another step ends before a share of the budget is used up."""
        end = Fraction(until) * Fraction(self.budget.amount)
        return Fraction(self.used) + Fraction(self.step(price, positions)) <= end

    def charge(
        self, phase: int, price: Price, positions: int, tokens: int, unique: int, masked: int
    ) -> Ledger:
        """The ledger after one more step.

        Args:
            phase: which phase the step is of, from 0.
            price: of the step.
            positions: of its batch, padding included.
            tokens: of its batch, padding not counted.
            unique: those of them seen for the first time.
            masked: those of them that were masked.

        Raises:
            ValueError: the step does not fit.
        """
        if not self.affords(price, positions):
            raise ValueError(
                f"a step of {self.step(price, positions)}, expected at most the {self.remaining} "
                "left"
            )
        parts = price.parts()
        return replace(
            self,
            spent={name: before + parts.get(name, 0) for name, before in self.spent.items()},
            phases=tuple(steps + (n == phase) for n, steps in enumerate(self.phases)),
            positions=self.positions + positions,
            tokens=self.tokens + tokens,
            unique_tokens=self.unique_tokens + unique,
            masked_tokens=self.masked_tokens + masked,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; FLOPs stay integers."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Ledger:
        """The inverse of `to_json`."""
        budget = Budget.from_json(values["budget"])
        phases = tuple(values["phases"])
        return Ledger(**{**values, "budget": budget, "phases": phases})
