"""Each arm's differences to the baseline arm, as a forest plot."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdjax.report import numbers, summary, svg
from kdjax.report.axes import WIDTH, truncate, write_margin_text
from kdjax.report.margins import margin_of
from kdjax.report.summary import Difference
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint

DifferenceRow = tuple[Endpoint, Difference]
"""A difference of two arms, and the endpoint that it is on."""


def draw(results: Results) -> Markup | None:
    """Draw a forest plot: each arm's paired difference to the baseline arm, by endpoint.

    Endpoints with the same unit share an axis, which is turned so that better lies to the right.
    """
    baseline = results.baseline_arm
    # Rows of each axis: an endpoint's label with None, then its arms with their differences.
    panels: dict[tuple[str, str], list[tuple[str, DifferenceRow | None]]] = {}
    for endpoint in summary.main_endpoints(results):
        rows: list[tuple[str, DifferenceRow | None]] = []
        for arm in results.arms:
            difference = summary.difference(results, endpoint, arm, baseline)
            if difference is not None and difference.mean is not None:
                rows.append((arm, (endpoint, difference)))
        if rows:
            panel = panels.setdefault((endpoint.unit, endpoint.better), [])
            panel += [(endpoint.label, None), *rows]
    if not panels:
        return None
    heights = [len(rows) for rows in panels.values()]
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.245 * sum(heights) + 0.68 * len(heights)))
        axes = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})[
            :, 0
        ]
        for ax, ((unit, better), rows) in zip(axes, panels.items(), strict=True):
            _forest(ax, results, rows, baseline)
            ax.set_xlabel(
                f"difference to {truncate(baseline)} ({unit}); better than {truncate(baseline)} →",
                loc="right",
            )
            if better == "lower":
                ax.invert_xaxis()
        return svg.render(
            figure,
            "differences",
            f"Paired differences to {baseline} with confidence intervals, by endpoint.",
        )


def _forest(
    ax: Axes, results: Results, rows: Sequence[tuple[str, DifferenceRow | None]], baseline: str
) -> None:
    """Draw differences to one arm below one another, on one axis."""
    # What lies within the band is a tie by the recipe's margin; endpoints on one axis share a unit.
    endpoint = next(row[0] for _, row in rows if row is not None)
    margin = margin_of(results.config, endpoint)
    ax.axvspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axvline(0, color=svg.MUTED, linewidth=1)
    for y, (arm, row) in enumerate(rows):
        if row is not None:
            _forest_row(ax, results, y, (arm, baseline), *row)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))

    # From top to bottom as in the tables; a row without a difference is a group's title.
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [truncate(name) for name, _ in rows])
    for label, (_, row) in zip(ax.get_yticklabels(), rows, strict=True):
        if row is None:
            label.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def _forest_row(
    ax: Axes,
    results: Results,
    y: float,
    arms: tuple[str, str],
    endpoint: Endpoint,
    difference: Difference,
) -> None:
    """Draw one difference: single seeds, interval, mean, and in the margin numbers and outcome."""
    assert difference.mean is not None  # the caller has checked
    index = list(results.arms).index(arms[0])
    colour = svg.arm_colour(index)
    # Only seeds that both arms have can be paired.
    values, others = [summary.values_by_seed(results, name, endpoint) for name in arms]
    seeds = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    ax.plot(seeds, [y] * len(seeds), "|", color=colour, markersize=8, markeredgewidth=1, alpha=0.55)
    text = numbers.signed(difference.mean)
    if difference.low is not None and difference.high is not None:
        ends = [difference.low, difference.high]
        ax.plot(ends, [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        text += f" {numbers.interval(*ends)}"

    # A winner's marker is filled and its outcome bold.
    face = svg.PAGE
    weight = "normal"
    if difference.outcome in ("BEATS", "LOSES"):
        face = colour
        weight = "bold"
    ax.plot(
        difference.mean,
        y,
        svg.arm_marker(index),
        markersize=7,
        markeredgewidth=1.6,
        markeredgecolor=colour,
        markerfacecolor=face,
    )
    write_margin_text(ax, y, text, 8)
    write_margin_text(ax, y, difference.outcome, 158, weight=weight)
