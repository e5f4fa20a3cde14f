"""What runs used, as tables: a row for each arm, the mean of its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdjax.budget.accounting import ACCOUNTS, CASES, charged
from kdjax.report import numbers
from kdjax.results.schema import ArmResult, Results, RunResult

_CLOCKS = ("compute", "input", "compile", "evaluation", "checkpoint")

Cell = tuple[str, str]
"""A figure, and below it what it is relative to something."""


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        name: what is in it.
        note: in smaller letters, below.
        faint: whether it stands back.
    """

    name: str
    note: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """A table of arms.

    Attributes:
        caption: what it shows.
        columns: all but the first, which is the arm.
        rows: arm -> its cells.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: Mapping[str, Sequence[Cell]]


def measures(results: Results) -> Table:
    """The three measures of a run side by side, whichever was enforced, and how much text it
    read."""
    budget = results.budget
    other = results.baseline_arm
    kinds: dict[str, Callable[[float], str]] = {
        "flops": numbers.flops,
        "tokens": numbers.count,
        "hours": lambda hours: numbers.duration(3600 * hours),
    }
    heads = {
        "flops": "FLOPs charged" if budget.kind == "flops" else "FLOPs",
        "tokens": "tokens, padding counted",
        "hours": f"wall-clock: {numbers.listed(budget.clock)}",
    }
    others = ("steps", "epochs", "tokens_seen", "tokens_unique", "tokens_masked")
    used = {
        arm: {
            kind: mean(used_of(results, run, kind) for run in runs(results, arm)) for kind in kinds
        }
        for arm in results.arms
    }

    def cell(arm: str, kind: str) -> Cell:
        amount = used[arm][kind]
        if kind == budget.kind:
            return kinds[kind](amount), numbers.percent(amount / budget.amount)
        return kinds[kind](amount), numbers.times(amount / used[other][kind])

    def rest(arm: str, name: str) -> Cell:
        amount = mean(getattr(run, name) for run in runs(results, arm))
        return (f"{amount:.2f}" if name == "epochs" else numbers.count(amount)), ""

    return Table(
        f"Three measures of a run; the budget is {numbers.budget(budget)}",
        (
            *(
                Column(
                    head,
                    "share of the budget" if kind == budget.kind else f"relative to {other}",
                )
                for kind, head in heads.items()
            ),
            *(Column(name.replace("_", " ")) for name in others),
        ),
        {
            arm: [*(cell(arm, kind) for kind in kinds), *(rest(arm, name) for name in others)]
            for arm in results.arms
        },
    )


def parts(results: Results) -> Table:
    """FLOPs of a step and of a run by account; accounts that no run has are left out."""
    other = results.baseline_arm
    paid = paid_for(results)
    shown = [account for account in ACCOUNTS if any(run.spent[account] for run in results.runs)]
    counted = "charged" if results.budget.kind == "flops" else "counted above"

    def row(arm: str) -> list[Cell]:
        described = results.arms[arm]
        total = mean(run.spent["total"] for run in runs(results, arm))
        spent = {
            account: mean(run.spent[account] for run in runs(results, arm)) for account in shown
        }
        in_case = sum(spent[account] for account in shown if account in paid)
        return [
            (
                ", then ".join(numbers.flops(phase.price.total) for phase in described.phases),
                numbers.times(_mean_price(described) / _mean_price(results.arms[other])),
            ),
            *(
                (
                    numbers.flops(flops),
                    f"{flops / in_case:.1%}" if account in paid and flops else "",
                )
                for account, flops in spent.items()
            ),
            (numbers.flops(total), ""),
        ]

    return Table(
        f"FLOPs of a run by part; shares are of what is {counted}",
        (
            Column("a step", f"relative to {other}"),
            *(
                Column(
                    account.replace("_", " "),
                    "" if account in paid else f"not {counted}",
                    account not in paid,
                )
                for account in shown
            ),
            Column("all"),
        ),
        {arm: row(arm) for arm in results.arms},
    )


def clocks(results: Results) -> Table:
    """Wall-clock of a run by kind."""
    budget = results.budget
    kinds = [kind for kind in _CLOCKS if any(kind in run.wall_clock for run in results.runs)]

    def row(arm: str) -> list[Cell]:
        seconds = [
            mean(run.wall_clock.get(kind, 0.0) for run in runs(results, arm)) for kind in kinds
        ]
        return [(numbers.duration(amount), "") for amount in (*seconds, sum(seconds))]

    counted = "charged" if budget.kind == "hours" else "counted above"
    return Table(
        "Wall-clock of a run",
        (
            *(Column(kind, counted if kind in budget.clock else "") for kind in kinds),
            Column("all"),
        ),
        {arm: row(arm) for arm in results.arms},
    )


def machine(results: Results) -> Table:
    """What the devices did for a run's steps, and how busy that kept them."""

    def row(arm: str) -> list[Cell]:
        model, hardware, of_model, of_hardware = (
            known(getattr(run.hardware, name) for run in runs(results, arm))
            for name in (
                "model_flops",
                "hardware_flops",
                "model_utilisation",
                "hardware_utilisation",
            )
        )
        ratio = numbers.times(hardware / model) if hardware and model else ""
        return [
            (_or_dash(numbers.flops, model), ""),
            (_or_dash(numbers.flops, hardware), ratio),
            (_or_dash(numbers.percent, of_model), ""),
            (_or_dash(numbers.percent, of_hardware), ""),
        ]

    return Table(
        "FLOPs and utilisation",
        (
            Column("model FLOPs"),
            Column("hardware FLOPs", "relative to model FLOPs"),
            Column("model utilisation"),
            Column("hardware utilisation"),
        ),
        {arm: row(arm) for arm in results.arms},
    )


def memory(results: Results) -> Table:
    """What a run's steps needed of memory, and how large its model is."""

    def row(arm: str) -> list[Cell]:
        found = runs(results, arm)
        described = results.arms[arm]
        needed = known(run.hardware.program_bytes for run in found)
        return [
            (numbers.count(described.parameters), ""),
            (numbers.count(described.parameters_without_embeddings), ""),
            (_or_dash(numbers.size, needed), ""),
            (numbers.size(max(run.hardware.high_water_bytes for run in found)), ""),
            (numbers.size(max(run.cache_bytes for run in found)), ""),
        ]

    return Table(
        "Parameters and memory",
        (
            Column("parameters"),
            Column("without embeddings"),
            Column("a step", "on a device"),
            Column("high water"),
            Column("stored outputs"),
        ),
        {arm: row(arm) for arm in results.arms},
    )


def peaks(results: Results) -> str:
    """What utilisation is a share of."""
    found = [run.hardware for run in results.runs]
    devices = sorted({one.devices for one in found})
    of = sorted({(one.peak.dtype, one.peak.source) for one in found})
    rates = sorted({numbers.flops(one.peak.flops_per_second) for one in found}, key=float)
    return (
        f"{numbers.listed([str(n) for n in devices])} device{'' if devices == [1] else 's'}, each "
        f"{rates[0] if len(rates) == 1 else f'{rates[0]} to {rates[-1]}'} FLOPs a second "
        f"({'; '.join(f'{dtype} matmuls, {source}' for dtype, source in of)})"
    )


def waters(results: Results) -> str:
    """What the high water mark is of."""
    return numbers.listed(sorted({run.hardware.high_water_source for run in results.runs}))


def unspent(results: Results, run: RunResult) -> str:
    """What a run left of its budget: in its last steps, or in seconds where a clock decided."""
    budget = run.budget
    left = run.budget.amount - run.used
    if budget.kind == "hours":
        return f"{3600 * left:.1f} s".replace("-", numbers.MINUS)
    last = results.arms[run.arm].phases[-1].price
    a_step = (
        charged(last.parts(), budget.teacher)
        if budget.kind == "flops"
        else run.positions / run.steps
    )
    return f"{left / a_step:.3f} steps"


def used_of(results: Results, run: RunResult, kind: str) -> float:
    """What a run used of FLOPs (as far as they are charged in the recipe's case), tokens or
    hours."""
    if kind == results.budget.kind:
        return float(run.used)
    if kind == "hours":
        return math.fsum(run.wall_clock.get(name, 0.0) for name in results.budget.clock) / 3600
    return float(run.spent["charged"] if kind == "flops" else run.positions)


def paid_for(results: Results) -> tuple[str, ...]:
    """The accounts that a budget of FLOPs charges, or would."""
    return CASES[results.budget.teacher]


def runs(results: Results, arm: str) -> list[RunResult]:
    """An arm's runs."""
    return [run for run in results.runs if run.arm == arm]


def mean(values: Iterable[float]) -> float:
    """The mean of one or more values."""
    found = list(values)
    return math.fsum(found) / len(found)


def known(values: Iterable[float | None]) -> float | None:
    """The mean of values, all of which are known; None where one is not."""
    found = list(values)
    return None if None in found else mean(value for value in found if value is not None)


def _or_dash(show: Callable[[float], str], value: float | None) -> str:
    return "–" if value is None else show(value)


def _mean_price(arm: ArmResult) -> float:
    """FLOPs of a step, over all of an arm's phases."""
    return float(sum(phase.steps * phase.price.total for phase in arm.phases) / arm.steps)
