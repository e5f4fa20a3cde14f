"""What a run has spent, by part, whether it can afford another step, and how its phases lie in its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from kdjax.budget.price import PARTS, Price
from kdjax.errors import InputError

ACCOUNTS = (*PARTS, "teacher_cache")
"""What a run pays for: the parts of its steps, and its share of the teacher outputs it reads."""


@dataclass(frozen=True)
class Stretch:
    """A phase as it lies in a budget.

    Attributes:
        price: of one of its steps.
        first: number of its first step.
        steps: how many it has.
        begin: share of the budget spent before it.
        share: of the budget, that one step spends.
    """

    price: Price
    first: int
    steps: int
    begin: float
    share: float

    @property
    def stop(self) -> int:
        """Number of the step after its last."""
        return self.first + self.steps


def lay_out(
    budget: int, phases: Sequence[tuple[float, Price]], upfront: int = 0, setting: str = "budget.flops"
) -> tuple[Stretch, ...]:
    """Lays phases out in a budget: none spends beyond its end, and less than one step is left over at the last.

    Args:
        budget: FLOPs.
        phases: of each, the share of the budget at which it ends (the last: 1) and the price of its steps.
        upfront: FLOPs spent before the first step.
        setting: where the budget was set, for messages.

    Raises:
        InputError: a phase without a single step.
    """
    stretches: list[Stretch] = []
    spent, first = upfront, 0
    for n, (until, price) in enumerate(phases, start=1):
        room = math.floor(Fraction(until) * budget) - spent
        steps = room // price.total
        if steps < 1:
            before = f" after {spent:.4g} spent before" if spent else ""
            which = f" of phase {n} (it ends at {until:g})" if len(phases) > 1 else ""
            raise InputError(
                f"{setting} is {budget:.4g}, expected at least the price of one step{which}{before}, {price.total:.4g}"
            )
        stretches.append(Stretch(price, first, steps, spent / budget, price.total / budget))
        spent, first = spent + steps * price.total, first + steps
    return tuple(stretches)


@dataclass(frozen=True)
class Ledger:
    """The account of one run; it travels in the checkpoint.

    Attributes:
        budget: FLOPs the run may spend.
        spent: FLOPs spent, by account (`ACCOUNTS`); their sum is what the budget is held against.
        steps: optimiser steps done.
        tokens: tokens seen, padding not counted.
        unique_tokens: those of them seen for the first time.
        cache_bytes: size of the stored teacher outputs that the run reads.
        seconds: wall-clock by kind (compute, input, compile, evaluation, checkpoint), over all restarts.
    """

    budget: int
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 0))
    steps: int = 0
    tokens: int = 0
    unique_tokens: int = 0
    cache_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """FLOPs spent."""
        return sum(self.spent.values())

    @property
    def remaining(self) -> int:
        """FLOPs left."""
        return self.budget - self.total

    @staticmethod
    def open(budget: int, upfront: int = 0, cache_bytes: int = 0) -> Ledger:
        """A new account, from which a share of stored teacher outputs is paid at once."""
        return Ledger(budget, {**dict.fromkeys(ACCOUNTS, 0), "teacher_cache": upfront}, cache_bytes=cache_bytes)

    def charge(self, price: Price, tokens: int, unique_tokens: int) -> Ledger:
        """The ledger after one more step that saw `tokens` tokens, `unique_tokens` of them for the first time.

        Raises:
            ValueError: the step does not fit.
        """
        if price.total > self.remaining:
            raise ValueError(f"a step of {price.total} FLOPs, expected at most the {self.remaining} left")
        parts = price.parts()
        spent = {name: before + parts.get(name, 0) for name, before in self.spent.items()}
        return replace(
            self,
            spent=spent,
            steps=self.steps + 1,
            tokens=self.tokens + tokens,
            unique_tokens=self.unique_tokens + unique_tokens,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; FLOPs stay integers."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Ledger:
        """The inverse of `to_json`."""
        return Ledger(**values)
