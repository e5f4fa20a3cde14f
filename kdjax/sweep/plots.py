"""The figures of a sweep. Each is an `<svg>` element; None where the sweep has nothing to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.report import ngram_losses, svg
from kdjax.report.axes import WIDTH, compact_number, set_height, show_logarithmic, truncate
from kdjax.report.margins import margin_of
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import Endpoint
from kdjax.sweep.schema import ArmPair, CurvePoint, Group, Profile, SweepResults, rows_of
from kdjax.sweep.verdict import pairs_with_baseline

Curves = Mapping[str, Sequence[CurvePoint]]
SEEDS: dict[str, Any] = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.45}
"""How single seeds look."""
WIDTHS = {1: WIDTH / 1.7, 2: WIDTH}
"""Columns of plots -> inches of the figure."""


def draw_curves(sweep: SweepResults, group: Group, endpoint: Endpoint, name: str) -> Markup | None:
    """Draw scores over the budget, differences to the baseline arm, and where those change sign.

    Args:
        sweep: sweep to draw.
        group: studies that differ in their budget only.
        endpoint: endpoint to draw.
        name: name of the figure, unique on the page.
    """
    shown = {arm: points for arm, points in group.curves[endpoint.name].items() if points}
    if not shown:
        return None

    # An arm without a single difference to the baseline arm has scores only.
    pairs = {}
    for arm, pair in pairs_with_baseline(group, endpoint, sweep.baseline_arm).items():
        if any(point.difference is not None for point in pair.points):
            pairs[arm] = pair
    crossing = {arm: pair for arm, pair in pairs.items() if pair.crossings}
    label, show = budget_axis(sweep.kind)
    budgets = sorted({point.budget for point in chain.from_iterable(shown.values())})
    with svg.style():
        # Scores to the left; differences to the right, with crossings below them.
        columns = 1 + bool(pairs)
        figure = Figure(figsize=(WIDTHS[columns], 3.7 + 0.2 * len(crossing)))
        heights = [3.1, 0.28 + 0.2 * len(crossing)] if crossing else [1]
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        ax = figure.add_subplot(grid[:, 0])
        _scores(ax, sweep, group, endpoint, shown)
        losses = ngram_losses.endpoint_losses(group.ngram_losses, endpoint.name, endpoint.unit)
        ngram_losses.draw(ax, losses)
        ax.set_title("Scores")
        ax.set_ylabel(endpoint.unit)
        show_logarithmic(ax, label, show, budgets)
        if pairs:
            beside = figure.add_subplot(grid[0, 1])
            _differences(beside, sweep, group, endpoint, pairs)
            show_logarithmic(beside, label, show, budgets)
        if crossing:
            strip = figure.add_subplot(grid[1, 1], sharex=beside)
            _strip(strip, sweep, crossing)
            show_logarithmic(strip, label, show, budgets)
            # The strip's axis of budgets serves the plot above it too.
            beside.set_xlabel("")
            beside.tick_params(axis="x", labelbottom=False)
        description = f"{endpoint.label} over the budget, and differences between arms."
        return svg.render(figure, name, description)


def budget_axis(kind: str) -> tuple[str, Callable[[float], str]]:
    """Return the label of an axis of budgets, and the function that writes a budget on it."""
    if kind == "hours":
        return "budget: hours", lambda hours: f"{hours:g}"
    label = "budget: FLOPs" if kind == "flops" else "budget: tokens"
    return label, compact_number


def _offset(sweep: SweepResults, arm: str, budgets: Sequence[float]) -> float:
    """Return the factor on an arm's budgets by which its marks stand beside the other arms'."""
    # At most a few per cent of the narrowest gap, so that budgets stay apart.
    gaps = [b / a for a, b in pairwise(budgets)]
    from_middle = sweep.arms.index(arm) - (len(sweep.arms) - 1) / 2
    return float(min([*gaps, 3.0]) ** (0.08 * from_middle))


def _scores(ax: Axes, sweep: SweepResults, group: Group, endpoint: Endpoint, shown: Curves) -> None:
    """Draw each arm's mean and standard deviation, and its single seeds."""
    rows = rows_of(sweep, group.settings)
    for arm, points in shown.items():
        index = sweep.arms.index(arm)
        colour = svg.arm_colour(index)
        budgets = [point.budget for point in points]
        offset = _offset(sweep, arm, budgets)
        seeds = [row for row in rows if row.arm == arm and endpoint.name in row.metrics]
        seed_budgets = [row.budget * offset for row in seeds]
        scores = [row.metrics[endpoint.name] for row in seeds]
        ax.plot(seed_budgets, scores, "o", color=colour, **SEEDS)
        ax.errorbar(
            [budget * offset for budget in budgets],
            [point.mean for point in points],
            [point.sd or 0.0 for point in points],
            color=colour,
            marker=svg.arm_marker(index),
            markersize=5.5,
            linewidth=1.9,
            elinewidth=1.1,
        )


def _differences(
    ax: Axes,
    sweep: SweepResults,
    group: Group,
    endpoint: Endpoint,
    pairs: Mapping[str, ArmPair],
) -> None:
    """Draw differences to the baseline arm with intervals, turned so that better is up."""
    # The margin is always in sight, so that a tie can be seen as one.
    margin = margin_of(sweep.config, endpoint)
    ax.axhspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axhline(0, color=svg.MUTED, linewidth=1)
    heights = [0.0, -margin, margin]
    ends: list[float] = []
    for arm, pair in pairs.items():
        means, seed_differences, interval_ends = _difference(ax, sweep, group, endpoint, arm, pair)
        heights += [*means, *seed_differences]
        ends += interval_ends

    # All means and seeds are shown; intervals are cut at as much again on either side.
    limit_height(ax, heights, ends, beyond=1.0, room=0.06)
    if endpoint.better == "lower":
        ax.invert_yaxis()
    ax.set_title(f"Difference to {truncate(sweep.baseline_arm, 24)}")
    ax.set_ylabel(f"{endpoint.unit}; better →")


def limit_height(
    ax: Axes, heights: Sequence[float], ends: Iterable[float], *, beyond: float, room: float
) -> None:
    """Set a plot's height to show all heights, with intervals cut where they go too far.

    Args:
        ax: plot to limit.
        heights: heights that must be shown.
        ends: ends of the intervals, in the plot's unit.
        beyond: distance that ends may go on either side, as a share of the span of the heights.
        room: empty room on either side, as a share of what is shown.
    """
    span = max(heights) - min(heights) or 1.0
    lowest = min(heights) - beyond * span
    highest = max(heights) + beyond * span
    set_height(ax, [*heights, *(min(max(end, lowest), highest) for end in ends)], room)


def _difference(
    ax: Axes, sweep: SweepResults, group: Group, endpoint: Endpoint, arm: str, pair: ArmPair
) -> tuple[list[float], list[float], list[float]]:
    """Draw one arm's differences; return the heights of means, of seeds, and of intervals' ends."""
    index = sweep.arms.index(arm)
    colour = svg.arm_colour(index)
    points = [point for point in pair.points if point.difference is not None]
    offset = _offset(sweep, arm, [point.budget for point in points])

    # Single seeds, means, and intervals where a budget has one.
    seed_budgets: list[float] = []
    seeds: list[float] = []
    means: list[float] = []
    band: list[tuple[float, float, float]] = []
    for point in points:
        paired = _paired(sweep, group, endpoint, arm, point.budget)
        seeds += paired
        seed_budgets += [point.budget * offset] * len(paired)
        means.append(point.difference or 0.0)
        if point.low is not None and point.high is not None:
            band.append((point.budget * offset, point.low, point.high))
    ax.plot(seed_budgets, seeds, "o", color=colour, **SEEDS)
    low = [end for _, end, _ in band]
    high = [end for _, _, end in band]
    if band:
        at = [budget for budget, _, _ in band]
        ax.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
        ax.vlines(at, low, high, color=colour, linewidth=1.1, alpha=0.8)
    ax.plot([point.budget * offset for point in points], means, color=colour, linewidth=1.9)

    # A filled marker: the arms are told apart.
    for point, height in zip(points, means, strict=True):
        fill = colour if point.verdict in ("BEATS", "LOSES") else svg.PAGE
        ax.plot(
            point.budget * offset,
            height,
            svg.arm_marker(index),
            markersize=6.5,
            markeredgewidth=1.5,
            markeredgecolor=colour,
            markerfacecolor=fill,
        )
    return means, seeds, [*low, *high]


def _paired(
    sweep: SweepResults, group: Group, endpoint: Endpoint, arm: str, budget: float
) -> list[float]:
    """Return the differences of single seeds to the baseline arm at a budget."""
    values: dict[str, dict[int, float]] = {arm: {}, sweep.baseline_arm: {}}
    for row in rows_of(sweep, group.settings):
        if row.arm in values and row.budget == budget and endpoint.name in row.metrics:
            values[row.arm][row.seed] = row.metrics[endpoint.name]
    arm_values = values[arm]
    baseline_values = values[sweep.baseline_arm]
    shared_seeds = sorted(arm_values.keys() & baseline_values.keys())
    return [arm_values[seed] - baseline_values[seed] for seed in shared_seeds]


def _strip(ax: Axes, sweep: SweepResults, pairs: Mapping[str, ArmPair]) -> None:
    """Draw where means cross, with intervals; an arrow where an end is open."""
    for y, (arm, pair) in enumerate(pairs.items()):
        colour = svg.arm_colour(sweep.arms.index(arm))
        for crossing in pair.crossings:
            # An open end is drawn as far as budgets were looked at.
            low = crossing.low or pair.points[0].budget
            high = crossing.high or pair.points[-1].budget
            ax.plot([low, high], [y, y], color=colour, linewidth=1.8)
            ax.plot(crossing.at, y, "|", color=colour, markersize=11, markeredgewidth=2.2)
            if crossing.low is None:
                ax.plot(low, y, "<", color=colour, markersize=5)
            if crossing.high is None:
                ax.plot(high, y, ">", color=colour, markersize=5)
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    ax.set_yticks(range(len(pairs)), [f"{truncate(arm, 14)} crosses" for arm in pairs])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def draw_isoflop(
    sweep: SweepResults, endpoint: Endpoint, profiles: Sequence[Profile], name: str
) -> Markup:
    """Draw an endpoint against the student's size: a plot an arm, a curve a budget, and optima.

    Args:
        sweep: sweep to draw.
        endpoint: endpoint to draw.
        profiles: profiles of the endpoint in one combination of what else was swept; at least one.
        name: name of the figure, unique on the page.
    """
    arms = list(dict.fromkeys(profile.arm for profile in profiles))
    budgets = sorted({profile.budget for profile in profiles})
    counted = _counted_losses(sweep, profiles[0].settings)
    losses = ngram_losses.endpoint_losses(counted, endpoint.name, endpoint.unit)
    points = chain.from_iterable(profile.points for profile in profiles)
    sizes = sorted({point.parameters for point in points})
    columns = min(len(arms), 2)
    rows = math.ceil(len(arms) / columns)
    _, show = budget_axis(sweep.kind)
    with svg.style():
        figure = Figure(figsize=(WIDTHS[columns], 3.3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        # With an odd number of arms the last place stays empty.
        for ax in axes[len(arms) :]:
            ax.set_visible(False)
        for ax, arm in zip(axes, arms, strict=False):
            for profile in profiles:
                if profile.arm == arm:
                    # The larger the budget, the stronger its curve.
                    below = len(budgets) - 1 - budgets.index(profile.budget)
                    strength = 1.0 - 0.65 * below / max(len(budgets) - 1, 1)
                    _profile(ax, profile, sweep.arms.index(arm), strength)
            ax.set_title(truncate(arm))
            ax.set_ylabel(endpoint.unit)
            ax.tick_params(labelleft=True)
            show_logarithmic(ax, "parameters without embeddings", _parameters, sizes)

        # Names come last: the plots share their height, which every curve may change.
        for ax, arm in zip(axes, arms, strict=False):
            last = {show(p.budget): p.points[-1].mean for p in profiles if p.arm == arm}
            ngram_losses.draw(ax, losses, extend=False, beside=last)
        description = f"{endpoint.label} against the student's size, for each arm and budget."
        return svg.render(figure, name, description)


def _counted_losses(sweep: SweepResults, settings: Mapping[str, Any]) -> CountedLosses | None:
    """Return the text's cross-entropies in the first group of studies with these settings."""
    for group in sweep.groups:
        if all(group.settings.get(name) == value for name, value in settings.items()):
            return group.ngram_losses
    return None


def _profile(ax: Axes, profile: Profile, index: int, strength: float) -> None:
    """Draw one budget's curve over sizes, with a star at its optimum."""
    sizes = [point.parameters for point in profile.points]
    means = [point.mean for point in profile.points]
    ax.errorbar(
        sizes,
        means,
        [point.sd or 0.0 for point in profile.points],
        color=svg.arm_colour(index),
        alpha=strength,
        marker=svg.arm_marker(index),
        markersize=5,
        linewidth=1.8,
        elinewidth=1.1,
    )
    optimum = profile.optimum
    if optimum is None:
        return
    # The star lies on the drawn curve, not on the fitted parabola.
    height = float(np.interp(math.log(optimum.parameters), np.log(sizes), means))
    if optimum.low is not None and optimum.high is not None:
        ends = [optimum.low, optimum.high]
        ax.plot(ends, [height, height], color=svg.INK, linewidth=1.4)
    star: dict[str, Any] = {"color": svg.INK, "markersize": 11, "markeredgecolor": svg.PAGE}
    ax.plot(optimum.parameters, height, "*", **star)


def _parameters(value: float) -> str:
    """Return a number of parameters, for instance `1.4M`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
