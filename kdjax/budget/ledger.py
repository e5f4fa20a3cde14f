"""What a run has spent, by part, and whether it can afford another step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kdjax.budget.price import PARTS, Price
from kdjax.errors import InputError


def affordable_steps(budget: int, price: Price, setting: str = "budget.flops") -> int:
    """How many whole steps a budget buys: never more than it holds, and less than one step is left over.

    Args:
        budget: FLOPs.
        price: of one step.
        setting: where the budget was set, for the message.

    Raises:
        InputError: the budget is smaller than one step.
    """
    steps = budget // price.total
    if steps < 1:
        raise InputError(f"{setting} is {budget:.4g}, expected at least the price of one step, {price.total:.4g}")
    return steps


@dataclass(frozen=True)
class Ledger:
    """The account of one run; it travels in the checkpoint.

    Attributes:
        budget: FLOPs the run may spend.
        spent: FLOPs spent, by part; the parts' sum is what the budget is held against.
        steps: optimiser steps done.
        tokens: tokens seen, padding not counted.
        unique_tokens: those of them seen for the first time.
        seconds: wall-clock by kind (compute, input, compile, evaluation, checkpoint), over all restarts.
    """

    budget: int
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    steps: int = 0
    tokens: int = 0
    unique_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """FLOPs spent."""
        return sum(self.spent.values())

    @property
    def remaining(self) -> int:
        """FLOPs left."""
        return self.budget - self.total

    def affords(self, price: Price) -> bool:
        """Whether one more step fits."""
        return price.total <= self.remaining

    def charge(self, price: Price, tokens: int, unique_tokens: int) -> Ledger:
        """The ledger after one more step that saw `tokens` tokens, `unique_tokens` of them for the first time."""
        parts = price.parts()
        spent = {name: self.spent[name] + parts[name] for name in PARTS}
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
