"""The figures of a plan with a pilot. Each is an `<svg>` element; None where it would be empty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdjax.plan.ranking import comparisons_with_baseline
from kdjax.plan.schema import (
    CrossingForecast,
    FittedLaw,
    FittedPlan,
    ForecastComparison,
    ForecastRange,
    HeldOutRow,
)
from kdjax.report import ngram_losses, numbers, summary, svg
from kdjax.report.axes import WIDTH, compact_number, show_logarithmic, truncate, write_margin_text
from kdjax.report.margins import margin_of
from kdjax.sweep.plots import limit_height

WIDTHS = {1: WIDTH / 1.5, 2: WIDTH}
"""Columns of plots -> inches of the figure."""
DASHES = (0, (2, 2))
"""How a law's curve is drawn where it may not be extrapolated."""


def draw_curves(fitted: FittedPlan) -> Markup | None:
    """Draw each arm's fitted law with its interval, the pilot's runs, and held-out predictions."""
    laws = {arm: law for arm, law in fitted.fits.items() if law.curve}
    if not laws:
        return None
    endpoint = fitted.pilot.endpoint
    heights = [run.value for run in fitted.pilot.runs]
    ends: list[float] = []
    drawn: list[float] = []
    with svg.style():
        figure = Figure(figsize=(WIDTH, 4.4))
        ax = figure.subplots()
        for arm, law in laws.items():
            _draw_law(ax, fitted, arm, law)
            _draw_runs(ax, fitted, arm)
            for point in law.curve:
                heights.append(point.mean)
                ends += [point.low, point.high]
                drawn.append(point.flops)
        heights += _draw_largest_held_out(ax, fitted)

        # Means and runs are shown whole; intervals are cut where they leave them far behind.
        limit_height(ax, heights, ends, beyond=0.5, room=0.05)
        _set_budget_axis(ax, fitted, drawn)

        # From the pilot's largest budget on, laws are extrapolated.
        ax.axvline(fitted.largest_budget, color=svg.INK, linewidth=1.1, linestyle=(0, (4, 2)))
        ax.annotate(
            "extrapolated →",
            (fitted.largest_budget, 1),
            (5, -4),
            xycoords=ax.get_xaxis_transform(),
            textcoords="offset points",
            va="top",
            color=svg.MUTED,
            fontsize=8.5,
        )

        # What counts of the text alone reach, where the plot shows such losses.
        counted = fitted.pilot.ngram_losses
        losses = ngram_losses.endpoint_losses(counted, endpoint.name, endpoint.unit)
        ngram_losses.draw(ax, losses, extend=False)
        ax.set_ylabel(f"{endpoint.unit} ({endpoint.better} is better)")
        description = f"{endpoint.label} over the budget: fitted laws and the pilot's runs."
        return svg.render(figure, "laws", description)


def _colour(fitted: FittedPlan, arm: str) -> str:
    """Return an arm's colour."""
    return svg.arm_colour(list(fitted.plan.arms).index(arm))


def _marker(fitted: FittedPlan, arm: str) -> str:
    """Return an arm's marker."""
    return svg.arm_marker(list(fitted.plan.arms).index(arm))


def _draw_law(ax: Axes, fitted: FittedPlan, arm: str, law: FittedLaw) -> None:
    """Draw an arm's law with its interval; dashed where it may not be extrapolated."""
    colour = _colour(fitted, arm)
    at = [point.flops for point in law.curve]
    low = [point.low for point in law.curve]
    high = [point.high for point in law.curve]
    ax.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    for edge in (low, high):
        ax.plot(at, edge, color=colour, linewidth=0.7, alpha=0.55)
    means = [point.mean for point in law.curve]
    line_style: Any = "-" if law.usable else DASHES
    ax.plot(at, means, color=colour, linewidth=1.9, linestyle=line_style)


def _draw_runs(ax: Axes, fitted: FittedPlan, arm: str) -> None:
    """Draw the pilot's runs of an arm light, and the mean of those of the recipe's size bold."""
    runs = [run for run in fitted.pilot.runs if run.arm == arm]
    colour = _colour(fitted, arm)
    size = fitted.plan.arms[arm].parameters_without_embeddings
    ax.plot(
        [run.flops for run in runs],
        [run.value for run in runs],
        "o",
        color=colour,
        markersize=3,
        markeredgewidth=0,
        alpha=0.5,
    )

    # The law is drawn for the recipe's size: other sizes would blur the mean beside it.
    for flops in sorted({run.flops for run in runs}):
        of_size = (run for run in runs if run.flops == flops and run.parameters == size)
        spread = summary.spread(run.value for run in of_size)
        if spread is not None:
            ax.plot(flops, spread.mean, _marker(fitted, arm), color=colour, markersize=6)


def _draw_largest_held_out(ax: Axes, fitted: FittedPlan) -> list[float]:
    """Draw predictions of the fit without the largest budget; return their heights."""
    arms = list(fitted.plan.arms)
    heights = []
    for check in fitted.held_out:
        for row in check.arms:
            size = fitted.plan.arms[row.name].parameters_without_embeddings
            # The law is that of the recipe's size; other checks are in a figure of their own.
            if check.budgets != 1 or row.parameters != size:
                continue
            colour = _colour(fitted, row.name)
            # Markers stand beside the runs, and arms beside one another.
            at = row.flops * 1.09 ** (1 + arms.index(row.name))
            ax.plot([at, at], [row.low, row.high], color=colour, linewidth=1.3)
            ax.plot(
                at,
                row.predicted,
                _marker(fitted, row.name),
                markersize=6,
                markerfacecolor=svg.PAGE,
                markeredgecolor=colour,
                markeredgewidth=1.4,
            )
            heights += [row.predicted, row.low, row.high]
    return heights


def _set_budget_axis(ax: Axes, fitted: FittedPlan, drawn: Sequence[float]) -> None:
    """Set the axis of budgets, marked at those of the plan and of the pilot."""
    marked = {*fitted.plan.budgets, *fitted.pilot.budgets}
    within = {budget for budget in marked if min(drawn) <= budget <= max(drawn)}
    show_logarithmic(ax, "budget: FLOPs", compact_number, sorted({*drawn, *within}))


def draw_differences(fitted: FittedPlan) -> Markup | None:
    """Draw each arm's forecast difference to the baseline arm, in the colour of the better arm."""
    baseline = fitted.plan.baseline_arm
    comparisons = list(comparisons_with_baseline(fitted).values())
    if not comparisons:
        return None
    columns = min(len(comparisons), 2)
    rows = math.ceil(len(comparisons) / columns)
    with svg.style():
        figure = Figure(figsize=(WIDTHS[columns], 3.5 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        # With an odd number of comparisons the last place stays empty.
        for ax in axes[len(comparisons) :]:
            ax.set_visible(False)
        for ax, comparison in zip(axes, comparisons, strict=False):
            _draw_difference(ax, fitted, comparison)
            ax.set_title(f"{truncate(comparison.a, 24)} less {truncate(baseline, 24)}")
        description = f"Forecast differences to {baseline} over the budget, with intervals."
        return svg.render(figure, "differences", description)


def _draw_difference(ax: Axes, fitted: FittedPlan, comparison: ForecastComparison) -> None:
    """Draw one arm's forecast difference with its interval, turned so that better is up."""
    endpoint = fitted.pilot.endpoint
    margin = margin_of(fitted.plan.config, endpoint)
    points = comparison.points
    colours = {
        "BEATS": _colour(fitted, comparison.a),
        "LOSES": _colour(fitted, comparison.b),
        "TIES": svg.INK,
        "INCONCLUSIVE": svg.MUTED,
    }
    ax.axhspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axhline(0, color=svg.MUTED, linewidth=1)
    for budgets in comparison.ranges:
        # A range goes on to the next one's first point, so that none of the curve is left out.
        inside = [n for n, p in enumerate(points) if budgets.low <= p.flops <= budgets.high]
        in_range = points[inside[0] : inside[-1] + 2]
        at = [point.flops for point in in_range]
        low = [point.low for point in in_range]
        high = [point.high for point in in_range]
        colour = colours[budgets.verdict]
        ax.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(at, [point.mean for point in in_range], color=colour, linewidth=2)
    _draw_crossing(ax, comparison.crossing, points[0].flops, points[-1].flops)

    # The margin is always in sight, so that a tie can be seen as one.
    heights = [0.0, -margin, margin, *(point.mean for point in points)]
    ends = chain.from_iterable((point.low, point.high) for point in points)
    limit_height(ax, heights, ends, beyond=1.0, room=0.14)
    if endpoint.better == "lower":
        ax.invert_yaxis()
    _set_budget_axis(ax, fitted, [point.flops for point in points])
    ax.axvline(fitted.largest_budget, color=svg.INK, linewidth=1.1, linestyle=(0, (4, 2)))

    # Verdicts come last: where they fit depends on the length of the axis.
    words = {
        "BEATS": f"{truncate(comparison.a, 14)} BEATS",
        "LOSES": f"{truncate(comparison.b, 14)} BEATS",
        "TIES": "TIES",
        "INCONCLUSIVE": "INCONCLUSIVE",
    }
    length = math.log(points[-1].flops / points[0].flops)
    for budgets in comparison.ranges:
        _draw_verdict(ax, budgets, words[budgets.verdict], colours[budgets.verdict], length)
    ax.set_ylabel(f"{endpoint.unit}; better →")


def _draw_crossing(ax: Axes, crossing: CrossingForecast, smallest: float, largest: float) -> None:
    """Draw where two laws cross, with its interval; an arrow where that goes on."""
    if crossing.value is None:
        return
    low = crossing.low or smallest
    high = crossing.high or largest
    ax.plot([low, high], [0, 0], color=svg.INK, linewidth=1.6)
    if crossing.low is None:
        ax.plot(low, 0, "<", color=svg.INK, markersize=5)
    if crossing.high is None:
        ax.plot(high, 0, ">", color=svg.INK, markersize=5)
    ax.plot(crossing.value, 0, "|", color=svg.INK, markersize=13, markeredgewidth=2)


def _draw_verdict(ax: Axes, budgets: ForecastRange, words: str, colour: str, length: float) -> None:
    """Draw the verdict on a range along the top; without words where there is no room.

    Args:
        ax: plot to draw on.
        budgets: neighbouring budgets with one verdict.
        words: text of the verdict.
        colour: colour of the verdict.
        length: length of the axis, in logarithm.
    """
    across = ax.get_xaxis_transform()
    ends = [budgets.low, budgets.high]
    ax.plot(ends, [1, 1], color=colour, linewidth=4, transform=across, clip_on=False)
    # A letter takes about a fortieth of the axis.
    if math.log(budgets.high / budgets.low) <= 0.024 * len(words) * length:
        return
    ax.annotate(
        words,
        (math.sqrt(budgets.low * budgets.high), 1),
        (0, -5),
        xycoords=across,
        textcoords="offset points",
        ha="center",
        va="top",
        color=svg.INK,
        fontsize=8.5,
        bbox={"facecolor": svg.PAGE, "edgecolor": "none", "pad": 1.0},
    )


def draw_held_out(fitted: FittedPlan) -> Markup | None:
    """Draw how far fits without the largest budgets were off at these budgets.

    Each mark is predicted less reached, with its interval: 0 is a perfect prediction. None where no
    budget was held out.
    """
    checks = fitted.held_out
    if not checks:
        return None
    rows = [(*check.arms, *check.differences) for check in checks]
    heights = [len(of_check) + 0.6 for of_check in rows]
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.26 * sum(heights) + 0.75 * len(checks)))
        grid = {"height_ratios": heights}
        axes = figure.subplots(len(checks), squeeze=False, gridspec_kw=grid, sharex=True)[:, 0]
        for ax, check, of_check in zip(axes, checks, rows, strict=True):
            _draw_errors(ax, fitted, of_check)
            ax.tick_params(axis="x", labelbottom=True)
            title = f"Without the {check.budgets} largest budgets"
            if check.budgets == 1:
                title = "Without the largest budget"
            ax.set_title(title)
        axes[-1].set_xlabel(f"predicted less reached ({fitted.pilot.endpoint.unit})")
        description = "Errors of predictions for budgets that were held out."
        return svg.render(figure, "held-out", description)


def _draw_errors(ax: Axes, fitted: FittedPlan, rows: Sequence[HeldOutRow]) -> None:
    """Draw a row for each prediction; open markers where its interval holds what was reached."""
    ax.axvline(0, color=svg.INK, linewidth=1.1)
    several_sizes = len({row.parameters for row in rows}) > 1
    for y, row in enumerate(rows):
        # Differences of two arms have no colour of their own.
        colour = svg.MUTED
        marker = "d"
        if row.name in fitted.plan.arms:
            colour = _colour(fitted, row.name)
            marker = _marker(fitted, row.name)

        # The grey bar is the scatter over seeds: an error within it tells nothing.
        if row.noise:
            ax.barh(y, 2 * row.noise, 0.7, -row.noise, color=svg.RULE, linewidth=0)
        ax.plot(
            [row.low - row.observed, row.high - row.observed],
            [y, y],
            color=colour,
            linewidth=1.8,
        )
        outcome = "outside"
        weight = "bold"
        fill = colour
        if row.covered:
            outcome = "inside"
            weight = "normal"
            fill = svg.PAGE
        ax.plot(
            row.error,
            y,
            marker,
            markersize=6.5,
            markeredgewidth=1.5,
            markeredgecolor=colour,
            markerfacecolor=fill,
        )

        # Beside the plot: the error in the endpoint's unit and in standard deviations over seeds.
        error = numbers.signed(row.error)
        if row.relative is not None:
            error += f", {row.relative:.1f} sd"
        write_margin_text(ax, y, error, 8)
        write_margin_text(ax, y, outcome, 108, weight=weight)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [_row_name(row, several_sizes) for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _row_name(row: HeldOutRow, several_sizes: bool) -> str:
    """Return a row's name: arm or arms, budget, and size where sizes differ."""
    parts = [truncate(row.name.replace(" - ", f" {numbers.MINUS} ")), compact_number(row.flops)]
    if several_sizes:
        parts.append(f"{compact_number(row.parameters)} parameters")
    return ", ".join(parts)
