"""What the studies of a sweep share where their budgets have one trunk, and what that saves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdjax.arms.charges import own_charges, per_run_share, teacher_flops
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.budget.accounting import CASES, Budget
from kdjax.budget.ledger import Ledger
from kdjax.budget.price import Price
from kdjax.config import Config
from kdjax.errors import counted
from kdjax.study.runs.run_backup import subdirectory
from kdjax.study.runs.trunk import StudyTrunk, TrunkStudy
from kdjax.sweep.cells import Cell, cells_of
from kdjax.sweep.phrases import say
from kdjax.sweep.schema import SweepRow
from kdjax.training.arm import Arm
from kdjax.training.phase_price import price
from kdjax.training.trunk import trunk_steps


@dataclass(frozen=True)
class TrunkCost:
    """The FLOPs of a sweep's runs, charged or not.

    Attributes:
        runs: number of runs.
        alone: FLOPs of all runs, each from its first step.
        paid: FLOPs that are spent where runs go on from trunks of smaller budgets.
    """

    runs: int
    alone: int
    paid: int

    def line(self) -> str:
        """Return the cost in words."""
        return say(
            "sweep_trunk",
            runs=counted(self.runs, "run"),
            alone=f"{self.alone:.4g}",
            paid=f"{self.paid:.4g}",
            share=f"{self.paid / self.alone:.1%}",
        )


def study_trunk(cells: Sequence[Cell], cell: Cell, out: Path) -> StudyTrunk:
    """Return the place of a study among those that share a trunk with it.

    Args:
        cells: studies of the sweep, small budgets first.
        cell: one of them.
        out: directory of the sweep.
    """
    smaller = []
    larger = []
    for other in cells:
        if other.group_settings != cell.group_settings:
            continue
        if other.budget.amount > cell.budget.amount:
            larger.append(other.budget)
        elif other.budget.amount < cell.budget.amount:
            place = f"cells/{other.name}"
            backup = subdirectory(other.config, place).train.checkpoint.directory
            smaller.append(TrunkStudy(other.name, out / place, backup))
    return StudyTrunk(tuple(reversed(smaller)), tuple(larger))


def costs_paid_and_alone(rows: Iterable[SweepRow]) -> TrunkCost | None:
    """Return the cost of a sweep's runs, as paid and were each alone; None: none shares a trunk."""
    runs = list(rows)
    if all(row.shared is None for row in runs):
        return None
    alone = sum(row.spent["total"] for row in runs)
    shared = sum(row.shared.flops for row in runs if row.shared is not None)
    return TrunkCost(len(runs), alone, alone - shared)


def trunk_cost(config: Config) -> TrunkCost | None:
    """Compute the cost of a sweep with a shared trunk, from prices alone.

    Args:
        config: recipe of the sweep.

    Returns:
        The cost; None where an arm reads stored teacher outputs, whose cost the text decides.

    Raises:
        InputError: as `cells_of`; or a budget that buys no step, or a teacher's cost that is
            charged and not known.
    """
    # Cost so far by what the trunk depends on: settings but for the budget, and arm
    trunks: dict[str, int] = {}
    prices: dict[str, Price] = {}
    alone = 0
    paid = 0
    runs = 0
    for cell in cells_of(config):
        for arm in arms_of(cell.config).values():
            if arm.stored_features:
                return None
            key = f"{cell.group_settings} {arm.name}"
            if key not in prices:
                prices[key] = price(arm.phases[0], batch_shape_of(cell.config))
            whole, trunk = _run_and_trunk(cell.config, arm, prices[key])
            seeds = len(cell.config.seeds)
            runs += seeds
            alone += seeds * whole
            paid += seeds * (whole - trunks.get(key, 0))
            trunks[key] = trunk
    return TrunkCost(runs, alone, paid)


def _run_and_trunk(config: Config, arm: Arm, step: Price) -> tuple[int, int]:
    """Return the FLOPs of a run, and those of its trunk, which a larger budget does not pay again.

    Args:
        config: recipe of its study.
        arm: its arm, of one phase.
        step: price of a step.
    """
    budget = Budget.from_config(config.budget)
    batch_shape = batch_shape_of(config)
    upfront = own_charges(config, arm)
    if arm.needs_teacher and "teacher_training" in CASES[budget.teacher_case]:
        upfront["teacher_training"] = per_run_share(
            teacher_flops(config, arm), config.budget.students
        )
    (span,) = arm.schedule_phases(budget, [step], batch_shape, upfront)
    opening = Ledger.open(budget, 1, upfront)
    step_cost = budget.step_cost(step, span.tokens_per_step)
    steps = trunk_steps(arm.phases[0].optimizer, opening, step_cost, span.steps)
    # Each run ends with a probe of its own.
    before = sum(upfront.values())
    whole = before + span.steps * step.total
    return whole, before - upfront.get("mlm_probe", 0) + steps * step.total
