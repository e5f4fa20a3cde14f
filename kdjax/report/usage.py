"""What runs used, as tables: a row for each arm, the mean of its runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kdjax.budget.accounting import ACCOUNTS, CASES, charged_flops
from kdjax.report import numbers, words_seen
from kdjax.report.averages import averages, averages_of, mean, mean_if_known, runs, text_or_dash
from kdjax.report.phrases import listed, say
from kdjax.results.arm_results import ArmResult
from kdjax.results.runs import RunResult
from kdjax.results.study import Results

CLOCKS = ("compute", "input", "compile", "evaluation", "checkpoint")
"""Kinds of a run's wall-clock, in their order."""

TableCell = tuple[str, str]
"""A figure, and below it what it is relative to something."""


Cells = Mapping[str, TableCell]
"""A column of a table: arm -> its cell."""


@dataclass(frozen=True)
class Column:
    """The head of a column.

    Attributes:
        name: title of the column.
        note: text in smaller letters below the name.
        faint: whether the column is drawn faint.
    """

    name: str
    note: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a row for each arm.

    Attributes:
        caption: sentence on what the table shows.
        columns: heads of all columns but the first, which is the arm.
        rows: arm -> its cells.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: Mapping[str, Sequence[TableCell]]


def measures(results: Results) -> Table:
    """Return the table of a run's FLOPs, tokens and hours, and of how much text it read."""
    budget = results.budget
    baseline = results.baseline_arm
    flops = "FLOPs charged" if budget.kind == "flops" else "FLOPs"
    heads: dict[str, tuple[str, Callable[[float], str]]] = {
        "flops": (flops, numbers.flops),
        "tokens": ("tokens, padding counted", numbers.count),
        "hours": (f"wall-clock: {listed(budget.clock)}", _show_hours),
    }
    columns: list[tuple[Column, Cells]] = []
    for kind, (head, show) in heads.items():
        used = averages(results, functools.partial(used_of_budget, results, kind=kind))
        # The enforced measure is held against the budget, the others against the baseline arm.
        whole = used[baseline]
        share: Callable[[float], str] = numbers.ratio
        note = f"relative to {baseline}"
        if kind == budget.kind:
            whole = budget.amount
            share = numbers.percent
            note = "share of the budget"
        cells = {arm: (show(amount), share(amount / whole)) for arm, amount in used.items()}
        columns.append((Column(head, note), cells))
    columns.append((Column("steps"), _column(results, "steps", numbers.count)))
    columns.append((Column("epochs"), words_seen.epoch_cells(results)))
    # Results of earlier versions have no count of words.
    if words_seen.has_word_counts(results):
        columns.append((Column("words seen"), words_seen.word_cells(results)))
    for name in ("tokens_seen", "tokens_unique", "tokens_masked"):
        column = Column(name.replace("_", " "))
        columns.append((column, _column(results, name, numbers.count)))
    return _table(f"Three measures of a run; the budget is {numbers.budget(budget)}", columns)


def parts(results: Results) -> Table:
    """Return the table of FLOPs of a step and of a run by account, without unused accounts."""
    baseline = results.baseline_arm
    paid = charged_accounts(results)
    counted = "charged" if results.budget.kind == "flops" else "counted above"
    prices = {arm: _mean_price(described) for arm, described in results.arms.items()}
    steps = {}
    for arm, described in results.arms.items():
        phases = ", then ".join(numbers.flops(phase.price.total) for phase in described.phases)
        steps[arm] = (phases, numbers.ratio(prices[arm] / prices[baseline]))
    columns: list[tuple[Column, Cells]] = [(Column("a step", f"relative to {baseline}"), steps)]

    # What is charged is the whole that shares are of; other accounts stand back.
    total = averages(results, lambda run: math.fsum(run.spent.get(account, 0) for account in paid))
    for account in ACCOUNTS:
        spent = averages_of(results, "spent", account)
        if not any(spent.values()):
            continue
        name = account.replace("_", " ")
        column = Column(name, f"not {counted}", faint=True)
        shares = dict.fromkeys(spent, "")
        if account in paid:
            column = Column(name)
            shares |= {arm: f"{flops / total[arm]:.1%}" for arm, flops in spent.items() if flops}
        cells = {arm: (numbers.flops(flops), shares[arm]) for arm, flops in spent.items()}
        columns.append((column, cells))
    whole = averages_of(results, "spent", "total")
    columns.append((Column("all"), {arm: (numbers.flops(v), "") for arm, v in whole.items()}))
    return _table(f"FLOPs of a run by part; shares are of what is {counted}", columns)


def clocks(results: Results) -> Table:
    """Return the table of the wall-clock of a run by kind."""
    budget = results.budget
    counted = "charged" if budget.kind == "hours" else "counted above"
    columns: list[tuple[Column, Cells]] = []
    whole = dict.fromkeys(results.arms, 0.0)
    notes = dict.fromkeys(budget.clock, counted)
    for kind in CLOCKS:
        if not any(kind in run.wall_clock for run in results.runs):
            continue
        seconds = averages_of(results, "wall_clock", kind)
        cells = {arm: (numbers.duration(amount), "") for arm, amount in seconds.items()}
        columns.append((Column(kind, notes.get(kind, "")), cells))
        whole = {arm: whole[arm] + amount for arm, amount in seconds.items()}
    columns.append((Column("all"), {arm: (numbers.duration(v), "") for arm, v in whole.items()}))
    return _table("Wall-clock of a run", columns)


def machine(results: Results) -> Table:
    """Return the table of what the devices did for a run's steps, and of their utilisation."""
    rows = {}
    for arm in results.arms:
        hardware = [run.hardware for run in runs(results, arm)]
        model_flops = mean(use.model_flops for use in hardware)
        hardware_flops = mean_if_known(use.hardware_flops for use in hardware)
        # The program's own FLOPs may exceed the model's: work that is done twice to save memory.
        ratio = ""
        if hardware_flops and model_flops:
            ratio = numbers.ratio(hardware_flops / model_flops)
        model_utilisation = mean_if_known(use.model_utilisation for use in hardware)
        hardware_utilisation = mean_if_known(use.hardware_utilisation for use in hardware)
        rows[arm] = [
            (numbers.flops(model_flops), ""),
            (text_or_dash(numbers.flops, hardware_flops), ratio),
            (text_or_dash(numbers.percent, model_utilisation), ""),
            (text_or_dash(numbers.percent, hardware_utilisation), ""),
        ]
    columns = (
        Column("model FLOPs"),
        Column("hardware FLOPs", "relative to model FLOPs"),
        Column("model utilisation"),
        Column("hardware utilisation"),
    )
    return Table("FLOPs and utilisation", columns, rows)


def memory(results: Results) -> Table:
    """Return the table of the memory that a run's steps needed, and of its model's size."""
    rows = {}
    for arm, described in results.arms.items():
        arm_runs = runs(results, arm)
        program = mean_if_known(run.hardware.program_bytes for run in arm_runs)
        rows[arm] = [
            (numbers.count(described.parameters), ""),
            (numbers.count(described.parameters_without_embeddings), ""),
            (text_or_dash(numbers.size, program), ""),
            (numbers.size(max(run.hardware.high_water_bytes for run in arm_runs)), ""),
            (numbers.size(max(run.cache_bytes for run in arm_runs)), ""),
        ]
    columns = (
        Column("parameters"),
        Column("without embeddings"),
        Column("a step", "on a device"),
        Column("high water"),
        Column("stored outputs"),
    )
    return Table("Parameters and memory", columns, rows)


def vendor_peak(results: Results) -> str:
    """Return the sentence on what utilisation is a share of."""
    hardware = [run.hardware for run in results.runs]
    devices = sorted({use.devices for use in hardware})
    sources = sorted({f"{use.peak.dtype} matmuls, {use.peak.source}" for use in hardware})
    return say(
        "vendor_peak",
        devices=listed(devices),
        rates=numbers.span((use.peak.flops_per_second for use in hardware), numbers.flops),
        sources="; ".join(sources),
    )


def peak_memory(results: Results) -> str:
    """Return the text on where the most memory in use was measured."""
    return listed(sorted({run.hardware.high_water_source for run in results.runs}))


def unspent_text(results: Results, run: RunResult) -> str:
    """Return as text what a run left of its budget: steps, or seconds where a clock decided."""
    budget = run.budget
    rest = budget.amount - run.used
    if budget.kind == "hours":
        return f"{3600 * rest:.1f} s".replace("-", numbers.MINUS)
    # A budget of tokens ends in steps of one size; one of FLOPs in those of the last phase.
    step: float = run.padded_tokens / run.steps
    if budget.kind == "flops":
        last_price = results.arms[run.arm].phases[-1].price
        step = charged_flops(last_price.parts(), budget.teacher_case)
    return f"{rest / step:.3f} steps"


def used_of_budget(results: Results, run: RunResult, kind: str) -> float:
    """Return a run's FLOPs (as far as they are charged), tokens or hours.

    Args:
        results: the content of results.json.
        run: one of its runs.
        kind: measure: flops, tokens or hours.
    """
    if kind == results.budget.kind:
        return float(run.used)
    if kind == "hours":
        return math.fsum(run.wall_clock.get(name, 0.0) for name in results.budget.clock) / 3600
    if kind == "tokens":
        return float(run.padded_tokens)
    return float(run.spent["charged"])


def charged_accounts(results: Results) -> tuple[str, ...]:
    """Return the accounts that a budget of FLOPs charges, or would."""
    return CASES[results.budget.teacher_case]


def _column(results: Results, name: str, show: Callable[[float], str]) -> Cells:
    """Return the cells of a field of the mean run."""
    amounts = averages(results, lambda run: getattr(run, name))
    return {arm: (show(amount), "") for arm, amount in amounts.items()}


def _table(caption: str, columns: Sequence[tuple[Column, Cells]]) -> Table:
    """Make a table of its columns."""
    # Columns are made one by one, and pages draw tables row by row.
    arms = list(columns[0][1])
    rows: dict[str, list[TableCell]] = {arm: [] for arm in arms}
    for _, cells in columns:
        for arm, row in rows.items():
            row.append(cells[arm])
    return Table(caption, tuple(column for column, _ in columns), rows)


def _show_hours(hours: float) -> str:
    """Write hours as a duration, in the unit that `numbers.duration` picks."""
    return numbers.duration(3600 * hours)


def _mean_price(arm: ArmResult) -> float:
    """Return the FLOPs of a step, averaged over all phases of an arm."""
    return float(sum(phase.steps * phase.price.total for phase in arm.phases) / arm.steps)
