"""What a run has spent, by part, whether it can afford another step, and where in the budget its
phases lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from kdjax.budget.accounting import EVERY_LEDGER, Budget
from kdjax.budget.price import Price
from kdjax.errors import InputError
from kdjax.storage.typed_json import stored_as


@dataclass(frozen=True)
class PhaseSpan:
    """The steps of a budget that a phase takes, and their price.

    Attributes:
        price: FLOPs of one step of the phase.
        first: number of the first step of the phase, from 0 at the start of the run.
        steps: number of steps.
        tokens_per_step: batch x length of a step, padding included.
    """

    price: Price
    first: int
    steps: int
    tokens_per_step: int

    @property
    def stop(self) -> int:
        """Return the number of the step after its last."""
        return self.first + self.steps


def schedule_phases(
    budget: Budget,
    phases: Sequence[tuple[float, Price]],
    tokens_per_step: int | Sequence[int],
    upfront: Mapping[str, int] | None = None,
    setting: str = "budget.flops",
) -> tuple[PhaseSpan, ...]:
    """Give each phase of an arm as many steps as end before its share of the budget does.

    Less than one step is left over at the end of the last phase.

    Args:
        budget: a budget in FLOPs or tokens.
        phases: share of the budget at which each phase ends (the last: 1), and the price
            of its steps.
        tokens_per_step: batch x length, one number for all phases or one for each.
        upfront: FLOPs spent before the first step, by account.
        setting: name of the setting that gave the budget, for messages.

    Raises:
        InputError: a phase has not a single step.
    """
    if isinstance(tokens_per_step, int):
        tokens_per_step = [tokens_per_step] * len(phases)
    spans: list[PhaseSpan] = []
    used = Ledger.open(budget, len(phases), upfront).used
    first = 0
    sized = zip(phases, tokens_per_step, strict=True)
    for number, ((until, price), tokens) in enumerate(sized, start=1):
        step = budget.step_cost(price, tokens)
        # Fractions: FLOPs outgrow what a double holds exactly.
        end = math.floor(Fraction(until) * Fraction(budget.amount))
        steps = (end - int(used)) // step
        if steps < 1:
            which = f" of phase {number} (it ends at {until:g})" if len(phases) > 1 else ""
            before = f" after {used:.4g} spent before" if used else ""
            raise InputError(
                f"{setting} is {budget.amount:.4g}, expected at least the price of one "
                f"step{which}{before}, {step:.4g}"
            )
        spans.append(PhaseSpan(price, first, steps, tokens))
        used += steps * step
        first += steps
    return tuple(spans)


@dataclass(frozen=True)
class Ledger:
    """The account of what one run has spent; it travels in the checkpoint.

    Attributes:
        budget: budget of the run.
        spent: FLOPs that the run has caused, by account (`ACCOUNTS`), charged or not.
        steps_by_phase: optimiser steps done in each phase.
        padded_tokens: batch x length, summed over the steps: tokens seen, padding counted.
        tokens: tokens seen, padding not counted.
        unique_tokens: tokens seen for the first time, padding not counted.
        masked_tokens: masked tokens seen, which a masked language model predicts.
        cache_bytes: size of the stored teacher outputs that the run reads.
        seconds: wall-clock by kind (compute, input, compile, evaluation, checkpoint), over all
            restarts.
        step_seconds: seconds of the last step, of the kinds that the budget's clock counts.
    """

    # Names and order of the fields are those of ledgers in checkpoints and in ledger.jsonl, whose
    # hashes are of its text.

    budget: Budget
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVERY_LEDGER, 0))
    steps_by_phase: tuple[int, ...] = field(default=(0,), metadata=stored_as("phases"))
    padded_tokens: int = field(default=0, metadata=stored_as("positions"))
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
        """Open a ledger on which FLOPs spent before the first step, by account, stand already.

        Args:
            budget: what the run may spend.
            phases: number of the run's phases.
            upfront: FLOPs spent before the first step, by account.
            cache_bytes: size of the stored outputs that the run reads.
        """
        spent = {**dict.fromkeys(EVERY_LEDGER, 0), **(upfront or {})}
        return Ledger(budget, spent, (0,) * phases, cache_bytes=cache_bytes)

    @property
    def steps(self) -> int:
        """Count the optimiser steps done."""
        return sum(self.steps_by_phase)

    @property
    def charged_flops(self) -> int:
        """Sum the FLOPs charged, in the budget's case of teacher accounting."""
        return self.budget.charges(self.spent)

    @property
    def used(self) -> float:
        """Compute the amount of the budget that is used up, in its unit."""
        if self.budget.kind == "hours":
            return self.counted_seconds / 3600
        if self.budget.kind == "tokens":
            return self.padded_tokens
        return self.charged_flops

    @property
    def counted_seconds(self) -> float:
        """Sum the wall-clock of the kinds that the budget's clock counts."""
        return sum(self.seconds.get(kind, 0.0) for kind in self.budget.clock)

    @property
    def share(self) -> float:
        """Compute the share of the budget that is used up."""
        return self.used / self.budget.amount

    @property
    def training_amount(self) -> float:
        """Compute the amount that training may spend, in the budget's unit: all but a charged MLM
        probe."""
        return self.budget.amount - self._probe

    @property
    def training_share(self) -> float:
        """Compute the share of `training_amount` that is used up.

        Learning rate and schedules follow it: they begin at 0 although the probe, which comes last,
        is charged first.
        """
        return self.training_used / self.training_amount

    @property
    def training_used(self) -> float:
        """Compute the part of `training_amount` that is used up, in the budget's unit."""
        return self.used - self._probe

    @property
    def _probe(self) -> int:
        """Compute a charged MLM probe's part of the budget: nothing of one in tokens or hours."""
        if self.budget.kind != "flops":
            return 0
        return self.spent.get("mlm_probe", 0)

    @property
    def remaining(self) -> float:
        """Compute the amount that is left, in the budget's unit."""
        return self.budget.amount - self.used

    def step_cost(self, price: Price, tokens_per_step: int) -> float:
        """Return the amount that the next step takes, in the budget's unit.

        Under a budget of hours nobody knows how long a step will take: it is taken to last as long
        as the last one did.

        Args:
            price: FLOPs of the step, by part.
            tokens_per_step: positions of a batch, padding included.
        """
        if self.budget.countable:
            return self.budget.step_cost(price, tokens_per_step)
        # Nobody knows how long a step will take: as long as the last one.
        return self.step_seconds / 3600

    def affords(self, price: Price, tokens_per_step: int, until: float = 1.0) -> bool:
        """Return whether another step ends before a share of the budget is used up.

        Args:
            price: price of the step.
            tokens_per_step: tokens that the step reads, padding included.
            until: share of the budget before which the step must end.
        """
        end = Fraction(until) * Fraction(self.budget.amount)
        return Fraction(self.used) + Fraction(self.step_cost(price, tokens_per_step)) <= end

    def charge(
        self, phase: int, price: Price, tokens_per_step: int, tokens: int, unique: int, masked: int
    ) -> Ledger:
        """Return the ledger after one more step.

        Args:
            phase: number of the step's phase, from 0.
            price: FLOPs of the step.
            tokens_per_step: batch x length, padding included.
            tokens: tokens of the batch, padding not counted.
            unique: tokens of the batch that are seen for the first time.
            masked: masked tokens of the batch.

        Raises:
            ValueError: the step does not fit.
        """
        if not self.affords(price, tokens_per_step):
            raise ValueError(
                f"a step of {self.step_cost(price, tokens_per_step)}, expected at most the "
                f"{self.remaining} left"
            )
        parts = price.parts()
        return replace(
            self,
            spent={name: before + parts.get(name, 0) for name, before in self.spent.items()},
            steps_by_phase=tuple(
                steps + (n == phase) for n, steps in enumerate(self.steps_by_phase)
            ),
            padded_tokens=self.padded_tokens + tokens_per_step,
            tokens=self.tokens + tokens,
            unique_tokens=self.unique_tokens + unique,
            masked_tokens=self.masked_tokens + masked,
        )
