"""What the mean run of each arm spends, as stacked bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.budget.accounting import ACCOUNTS
from kdjax.report import numbers, svg
from kdjax.report.averages import averages_of
from kdjax.report.axes import WIDTH, show_linear, truncate, write_margin_text
from kdjax.report.usage import charged_accounts
from kdjax.results.study import Results


def draw(results: Results) -> Markup | None:
    """Draw FLOPs of the mean run of each arm by account, as stacked bars; what is not charged last.

    A budget of FLOPs is drawn, too. What is not charged can be far more than what is: then it is
    cut short, and its amount stands beside the bar.
    """
    if not results.runs:
        return None
    budget = results.budget
    paid = charged_accounts(results)
    amounts: dict[str, dict[str, float]] = {arm: {} for arm in results.arms}
    for account in ACCOUNTS:
        for arm, flops in averages_of(results, "spent", account).items():
            amounts[arm][account] = flops
    charged = {}
    for arm, spent in amounts.items():
        charged[arm] = math.fsum(spent[account] for account in paid)

    # Shares are of the budget, where that is one of FLOPs; else of what an arm is charged.
    is_limited = budget.kind == "flops"
    wholes = charged
    label = "FLOPs"
    scale = max(charged.values())
    if is_limited:
        wholes = dict.fromkeys(amounts, budget.amount)
        label = "FLOPs (dashed: the budget)"
        scale = budget.amount
    longest = max(math.fsum(spent.values()) for spent in amounts.values())
    # The axis ends at the longest bar, but at twice what is charged at most.
    edge = min(max(scale, longest), 2 * max(scale, *charged.values()))
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.36 * len(amounts) + 0.75))
        ax = figure.subplots()
        for y, (arm, spent) in enumerate(amounts.items()):
            _bar(ax, y, spent, paid, wholes[arm], edge)
        if is_limited:
            ax.axvline(scale, color=svg.INK, linewidth=1.2, linestyle=(0, (4, 2)))
        ax.set_ylim(len(amounts) - 0.5, -0.5)
        ax.set_xlim(0, edge * 1.01)
        ax.set_yticks(range(len(amounts)), [truncate(arm) for arm in amounts])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        show_linear(ax, label, numbers.flops)
        return svg.render(figure, "spending", "FLOPs of a run by part, for each arm.")


def _bar(
    ax: Axes, y: float, spent: Mapping[str, float], paid: Sequence[str], whole: float, edge: float
) -> None:
    """Draw an arm's bar, cut at `edge`, with shares of `whole` in what is charged."""
    left = 0.0
    for account in sorted(ACCOUNTS, key=lambda account: account not in paid):
        width = max(0.0, min(spent[account], edge - left))
        is_charged = account in paid
        look: dict[str, Any] = {
            "color": svg.part_colour(ACCOUNTS.index(account)),
            "edgecolor": svg.PAGE,
            "alpha": 1 if is_charged else svg.FAINT,
        }
        if width:
            ax.barh(y, width, 0.66, left, linewidth=0.6, **look)
        if is_charged and width > 0.05 * edge:
            centre = left + width / 2
            share = f"{spent[account] / whole:.1%}"
            ax.text(centre, y, share, ha="center", va="center", color="#111111")
        left += spent[account]
    if left > edge * (1 + 1e-9):
        write_margin_text(ax, y, f"→ {numbers.flops(left)}", 4, color=svg.MUTED)
