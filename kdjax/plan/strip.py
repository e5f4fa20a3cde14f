"""Who is ahead at which budget, as one strip along the axis of budgets."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.plan.ranking import RankedRange, ranked_ranges
from kdjax.plan.schema import FittedPlan
from kdjax.plan.verdict import leader
from kdjax.report import svg
from kdjax.report.axes import WIDTH, compact_number, show_logarithmic, truncate

_LETTER = 0.0115
"""Share of the strip that a letter takes."""
_FEWEST = 4
"""Letters of a name that still say which it is."""
_SIGNS = {"ties": "=", "open": "?"}
"""What stands for a tie and for an open lead where their words do not fit."""


def draw(fitted: FittedPlan) -> Markup | None:
    """Draw the arms ahead over all budgets compared; None where nothing was compared.

    Args:
        fitted: plan with its pilot.
    """
    ranges = ranked_ranges(fitted)
    if not ranges or ranges[-1].high <= ranges[0].low:
        return None
    with svg.style():
        figure = Figure(figsize=(WIDTH, 1.15))
        ax = figure.subplots()
        whole = math.log(ranges[-1].high / ranges[0].low)
        for n, ranked in enumerate(ranges):
            # A range goes on to where the next one begins, so that no gap is left between.
            high = ranges[n + 1].low if n + 1 < len(ranges) else ranked.high
            _draw_range(ax, fitted, ranked, high, whole)
        marked = {budget for budget in fitted.plan.budgets if _within(budget, ranges)}
        ends = {ranges[0].low, ranges[-1].high}
        show_logarithmic(ax, "budget: FLOPs", compact_number, sorted(marked | ends))
        ax.set_xlim(ranges[0].low, ranges[-1].high)
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.spines["left"].set_visible(False)
        largest = fitted.largest_budget
        if ranges[0].low < largest < ranges[-1].high:
            ax.axvline(largest, color=svg.INK, linewidth=1.2, linestyle=(0, (4, 2)))
            ax.annotate(
                "extrapolated →",
                (largest, 1),
                (4, 3),
                xycoords=ax.get_xaxis_transform(),
                textcoords="offset points",
                color=svg.MUTED,
                fontsize=8.5,
                annotation_clip=False,
            )
        return svg.render(figure, "strip", "The arms ahead at each budget, by forecast.")


def _within(budget: float, ranges: list[RankedRange]) -> bool:
    """Return whether a budget lies within the budgets compared."""
    return ranges[0].low <= budget <= ranges[-1].high


def _draw_range(
    ax: Axes, fitted: FittedPlan, ranked: RankedRange, high: float, whole: float
) -> None:
    """Draw one range: an arm that is ahead in its colour, a tie or an open lead in grey.

    Args:
        ax: the strip.
        fitted: plan with its pilot.
        ranked: the range.
        high: its end.
        whole: length of the strip, in logarithm.
    """
    ranking = ranked.ranking
    arms = list(fitted.plan.arms)
    look: dict[str, Any] = {"color": svg.RULE}
    if ranking.kind == "wins":
        look = {"color": svg.arm_colour(arms.index(ranking.arms[0])), "alpha": 0.45}
    elif ranking.kind == "ties":
        look = {"color": svg.MUTED, "alpha": 0.45}
    ax.axvspan(ranked.low, high, linewidth=0, **look)
    length = math.log(high / ranked.low) / whole
    letters = int(length / _LETTER)
    # What does not fit is said shorter; a range without room has its colour alone.
    words = leader(ranking)
    if ranking.kind == "wins" and letters >= _FEWEST:
        words = truncate(words, letters)
    elif len(words) > letters:
        words = _SIGNS.get(ranking.kind, "")
    if len(words) <= letters:
        centre = math.sqrt(ranked.low * high)
        weight = "bold" if ranking.kind == "wins" else "normal"
        ax.text(centre, 0.5, words, ha="center", va="center", weight=weight)
