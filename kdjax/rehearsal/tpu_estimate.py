"""How long a recipe would take on TPUs that nobody has rented yet, and what that would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.config import Config
from kdjax.dry_run.compiling import compile_recipe
from kdjax.dry_run.recipe_prices import prices
from kdjax.dry_run.task_costs import task_costs
from kdjax.errors import InputError, counted, nearest
from kdjax.hlo import aot
from kdjax.hlo.chips import CHIPS

UTILISATION = {"v5e": 0.6, "v6e": 0.3, "v5p": 0.6}
"""Chip -> share of its peak that the steps of configs/tpu reach by the TPU compiler's estimate,
rounded down (docs/tpu.md)."""
TASK_STEP_SECONDS = 0.005
"""Seconds that a step of fine-tuning takes at least, however few its rows: what the TPU compiler
estimates for a 6 x 768 student on v5e (docs/tpu.md)."""
TOPOLOGIES = {"v5e": "v5e:2x4", "v6e": "v6e:2x4", "v5p": "v5p:2x2x1"}
"""Chip -> a slice of one host."""


@dataclass(frozen=True)
class Work:
    """The FLOPs of a study, before anything is spent.

    Attributes:
        runs: number of runs.
        training: FLOPs of all runs' training, by the recipe's budget; None under a budget of hours.
        hours: hours of all runs one after another, under a budget of hours; else None.
        teacher: FLOPs of training teachers and fitting a head.
        tasks: FLOPs of measuring all runs on tasks, by what is known of these.
        task_steps: steps of fine-tuning of all runs.
        unknown: what is not known, and so not counted, in words.
    """

    runs: int
    training: float | None
    hours: float | None
    teacher: float
    tasks: float
    task_steps: int
    unknown: tuple[str, ...]

    def hours_at(self, rate: float) -> float:
        """Estimate the hours that the whole study takes at a rate of FLOPs.

        Batches of fine-tuning are too small to reach the rate: each of their steps takes
        `TASK_STEP_SECONDS` at least. Hours of a budget of hours are added as they are.

        Args:
            rate: FLOPs a second.
        """
        training = ((self.training or 0.0) + self.teacher) / rate
        tasks = max(self.tasks / rate, self.task_steps * TASK_STEP_SECONDS)
        return (training + tasks) / 3600 + (self.hours or 0.0)


@dataclass(frozen=True)
class ChipEstimate:
    """A study on one kind of chip.

    Attributes:
        chip: name of the chip, such as v5e.
        chips: number of chips that the hours are of.
        utilisation: share of the peak that is reached.
        source: where that share is from, in words.
        hours: hours on that many chips; None: they are not known.
        price: price of a chip-hour; None: the user gave none.
        note: why nothing is known, in words.
    """

    chip: str
    chips: int
    utilisation: float | None
    source: str
    hours: float | None
    price: float | None
    note: str = ""

    @property
    def cost(self) -> float | None:
        """Return the price of all chip-hours, in the unit that the user has in mind."""
        if self.hours is None or self.price is None:
            return None
        return self.hours * self.chips * self.price


def parse_by_chip(words: Sequence[str], option: str, low: float, high: float) -> dict[str, float]:
    """Read numbers by chip from a command line: `v5e=1.2`.

    Args:
        words: the words, each CHIP=NUMBER.
        option: name of the option, for messages.
        low: what the numbers are above.
        high: largest number.

    Raises:
        InputError: a word of another form, a chip that is not estimated or is named twice, or a
            number out of range.
    """
    numbers: dict[str, float] = {}
    for word in words:
        chip, _, written = word.partition("=")
        if chip not in TOPOLOGIES:
            raise InputError(
                f"{option} is {word!r:.80}, expected CHIP=NUMBER with one of "
                f"{', '.join(TOPOLOGIES)}{nearest(chip, TOPOLOGIES)}"
            )
        if chip in numbers:
            raise InputError(f"{option} names {chip} twice, expected each chip once")
        try:
            number = float(written)
        except ValueError:
            raise InputError(f"{option} is {word!r:.80}, expected a number after =") from None
        # NaN is in no range.
        if not low < number <= high:
            raise InputError(
                f"{option} is {word!r:.80}, expected more than {low:g}, at most {high:g}"
            )
        numbers[chip] = number
    return numbers


def work_of(config: Config) -> Work:
    """Count the FLOPs of a recipe's study.

    A budget of FLOPs is what its runs spend, to within a step each. Of a budget of tokens every
    arm's steps are priced.

    Args:
        config: the recipe.

    Raises:
        InputError: a recipe without a budget, or an arm that its models do not allow.
    """
    # Training: what the budget says, or the steps that its tokens are
    budget = Budget.from_config(config.budget)
    runs = len(config.arms) * len(config.seeds)
    training: float | None = None
    hours: float | None = None
    unknown = []
    if budget.kind == "hours":
        hours = runs * float(budget.amount)
    elif budget.kind == "flops":
        training = runs * float(budget.amount)
    else:
        training = 0.0
        for name, phases in prices(config).items():
            if phases[0]["steps"] is None:
                unknown.append(f"the steps of {name}, which need a prepared corpus")
                continue
            per_run = sum(phase["total"] * phase["steps"] for phase in phases)
            training += len(config.seeds) * per_run

    # The teachers, and the downstream tasks
    teacher = config.teacher.head.budget
    teacher += len(config.teacher.train.seeds) * config.teacher.train.budget
    tasks = 0.0
    task_steps = 0
    for cost in task_costs(config).values():
        tasks += len(config.seeds) * cost["flops"]
        steps = sum(protocol["steps"] for protocol in cost["protocols"].values())
        task_steps += len(config.seeds) * steps
        if cost["unknown"] and cost["unknown"] not in unknown:
            unknown.append(cost["unknown"])
    if any(arm.teacher == "cached" for arm in config.arms.values()) and not config.cache.source:
        unknown.append("storing the teacher's outputs, which needs a prepared corpus")
    return Work(runs, training, hours, teacher, tasks, task_steps, tuple(unknown))


def stated_estimates(
    work: Work, utilisation: Mapping[str, float], prices: Mapping[str, float]
) -> list[ChipEstimate]:
    """Estimate a study on each kind of chip by a share of its peak.

    Args:
        work: FLOPs of the study.
        utilisation: chip -> share of the peak, where it is not that of `UTILISATION`.
        prices: chip -> price of a chip-hour.
    """
    estimates = []
    for chip, topology in TOPOLOGIES.items():
        chips = _chips(topology)
        share = utilisation.get(chip, UTILISATION[chip])
        source = "as stated" if chip in utilisation else "assumed"
        estimates.append(_estimate(work, chip, chips, share, source, prices.get(chip)))
    return estimates


def compiled_estimates(
    config: Config, work: Work, prices: Mapping[str, float]
) -> list[ChipEstimate]:
    """Estimate a study on each kind of chip by what the TPU's compiler makes of its steps.

    Args:
        config: the recipe.
        work: FLOPs of the study.
        prices: chip -> price of a chip-hour.

    Raises:
        InputError: libtpu, which has the compiler, is not installed.
    """
    estimates = []
    for chip, topology in TOPOLOGIES.items():
        target = aot.slice_of(topology)
        # A mesh of eight devices is none of four: the other chips are estimated all the same.
        try:
            rows = compile_recipe(config, target)
        except InputError as e:
            note = f"not on {topology}: {e}"
            estimates.append(
                ChipEstimate(chip, target.chips, None, "compiler", None, prices.get(chip), note)
            )
            continue
        share = _mean_utilisation(rows)
        estimates.append(_estimate(work, chip, target.chips, share, "compiler", prices.get(chip)))
    return estimates


def _estimate(
    work: Work, chip: str, chips: int, share: float | None, source: str, price: float | None
) -> ChipEstimate:
    """Return the estimate at a share of the peak; under a budget of hours that is of the rest."""
    hours = work.hours_at(chips * _peak(chip) * share) if share is not None else None
    return ChipEstimate(chip, chips, share, source, hours, price)


def _mean_utilisation(rows: Mapping[str, Any]) -> float | None:
    """Return the share of the peak over all arms, each with the same FLOPs; None: not known."""
    inverses: list[float] = []
    for phases in rows["arms"].values():
        shares = [(phase["estimated"] or {}).get("utilisation") for phase in phases]
        known = [float(share) for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        inverses.append(sum(1 / share for share in known) / len(known))
    return len(inverses) / sum(inverses)


def _peak(chip: str) -> float:
    """Return the peak of a whole chip, in FLOPs a second; a chip of these is one device."""
    return CHIPS[chip].peak.flops_per_second


def _chips(topology: str) -> int:
    """Return the chips of a slice."""
    count = 1
    for side in topology.partition(":")[2].split("x"):
        count *= int(side)
    return count


def lines_of(work: Work, estimates: Sequence[ChipEstimate]) -> list[str]:
    """Return the time and memory that a study would take, a line for each kind of chip."""
    parts = []
    if work.training is not None:
        parts.append(f"{work.training:.4g} FLOPs of training")
    if work.hours is not None:
        parts.append(f"{work.hours:g} hours of training by the clock")
    if work.teacher:
        parts.append(f"{work.teacher:.4g} of teachers")
    if work.tasks:
        steps = (
            f"{work.task_steps:,} steps of fine-tuning, at {1000 * TASK_STEP_SECONDS:g} ms or more"
        )
        parts.append(f"{work.tasks:.4g} of tasks ({steps})")
    lines = [f"the recipe itself: {counted(work.runs, 'run')}, {', '.join(parts)}"]
    for estimate in estimates:
        lines.append(_line(estimate))
    if work.unknown:
        lines.append(f"not counted: {'; '.join(work.unknown)}")
    lines.append("estimates, not measured; compiling, held-out losses and waiting come on top")
    return lines


def _line(estimate: ChipEstimate) -> str:
    """Return the time and memory that a study would take on one kind of chip."""
    where = f"{estimate.chips} chips of {estimate.chip}"
    if estimate.hours is None or estimate.utilisation is None:
        return f"  {where}: not known{estimate.note and f' ({estimate.note})'}"
    line = f"  {where}: {estimate.hours:,.3g} hours at {estimate.utilisation:.0%} of the peak "
    line += f"({estimate.source}), {estimate.hours * estimate.chips:,.4g} chip-hours"
    if estimate.cost is not None:
        line += f", {estimate.cost:,.2f} at {estimate.price:g} a chip-hour"
    return line
