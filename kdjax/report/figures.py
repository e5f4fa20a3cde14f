"""The report's figures: each an `<svg>` element, or None where a study has nothing to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kdjax.budget.accounting import ACCOUNTS, Budget
from kdjax.report import numbers, reference_losses, summary, svg
from kdjax.report.axes import WIDTH, hline, label_lines, linear, margin_text, truncate
from kdjax.report.summary import Difference, Spread, task_of
from kdjax.report.usage import averages_of, mean, paid_for, runs
from kdjax.results.runs import ProbedLayers, Reference, RunResult, probed_layers
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, MeasuredEndpoint

Row = tuple[Endpoint, Difference]
"""A difference of two arms, and the endpoint that it is on."""
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Amounts of the budget spent, and a loss at each."""


def differences(results: Results) -> Markup | None:
    """Draw a forest plot: each arm's paired difference to the baseline arm, by endpoint.

    Endpoints with the same unit share an axis, which is turned so that better lies to the right.
    """
    baseline = results.baseline_arm
    # Rows of each axis: an endpoint's label with None, then its arms with their differences.
    panels: dict[tuple[str, str], list[tuple[str, Row | None]]] = {}
    for endpoint in results.endpoints:
        rows: list[tuple[str, Row | None]] = []
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
    ax: Axes, results: Results, rows: Sequence[tuple[str, Row | None]], baseline: str
) -> None:
    """Draw differences to one arm below one another, on one axis."""
    # What lies within the band is a tie by the recipe's margin.
    margin = results.config["evaluation"]["margin"]
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
    values, others = [summary.by_seed(results, name, endpoint) for name in arms]
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
    if difference.outcome in ("beats", "loses"):
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
    margin_text(ax, y, text, 8)
    margin_text(ax, y, difference.outcome.replace("unclear", "inconclusive"), 158, weight=weight)


def spending(results: Results) -> Markup | None:
    """Draw FLOPs of the mean run of each arm by account, as stacked bars; what is not charged last.

    A budget of FLOPs is drawn, too. What is not charged can be far more than what is: then it is
    cut short, and its amount stands beside the bar.
    """
    if not results.runs:
        return None
    budget = results.budget
    paid = paid_for(results)
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
        linear(ax, label, numbers.flops)
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
        margin_text(ax, y, f"→ {numbers.flops(left)}", 4, color=svg.MUTED)


def learning(results: Results, figure: str = "mlm_loss") -> Markup | None:
    """Draw a held-out loss along the budget: every seed light, the mean bold.

    Args:
        results: the content of results.json.
        figure: `mlm_loss`, which arms have that train the head, or `mlm_probe`, where it was
            measured along the way.

    Returns:
        None where no run has the figure.
    """
    curves = {arm: _curves(results, arm, figure) for arm in results.arms}
    curves = {arm: seeds for arm, seeds in curves.items() if seeds}
    if not curves:
        return None
    loss, name = {
        "mlm_loss": ("held-out MLM loss", "learning"),
        "mlm_probe": ("MLM probe, held-out loss", "learning-probe"),
    }[figure]

    # Levels that a curve can be held against: counts of the text alone, and the teacher.
    levels = reference_losses.of_endpoint(results.corpus.reference_losses, figure, "nats")
    teacher_loss = _teacher_loss(results, figure)
    if teacher_loss is not None:
        levels["teacher"] = teacher_loss
    amount, label, show = _along(results.budget)
    with svg.style():
        canvas = Figure(figsize=(WIDTH, 3.3))
        whole, second_half = canvas.subplots(1, 2)
        late: list[float] = []
        stop = amount
        for index, arm in enumerate(results.arms):
            seeds = curves.get(arm, [])
            for ax in (whole, second_half):
                _learning_curves(ax, seeds, index)
            for budgets, losses in seeds:
                late += losses[budgets >= amount / 2].tolist()
                # What is measured last may itself be on the clock.
                stop = max(stop, budgets[-1])
        reference_losses.draw(whole, levels)
        whole.set_xlim(0, stop)
        second_half.set_xlim(amount / 2, stop)
        # The second half has a scale of its own: there arms differ by little.
        if late:
            room = 0.08 * (max(late) - min(late)) or 0.01
            second_half.set_ylim(min(late) - room, max(late) + room)
            reference_losses.draw(second_half, levels, extend=False)
        for ax, title in ((whole, "The whole budget"), (second_half, "Its second half")):
            ax.set_title(title)
            ax.set_ylabel(f"{loss} (nats)")
            linear(ax, label, show)
        return svg.render(canvas, name, f"{loss[0].upper()}{loss[1:]} against {label}.")


def _curves(results: Results, arm: str, figure: str) -> list[Curve]:
    """Return for each seed of an arm the amounts spent and a loss at them."""
    amount = _along(results.budget)[0]
    curves = []
    for run in runs(results, arm):
        points = [point for point in run.curve if figure in point]
        if points:
            shares = np.array([point["share"] for point in points])
            curves.append((shares * amount, np.array([point[figure] for point in points])))
    return curves


def _learning_curves(ax: Axes, seeds: Sequence[Curve], index: int) -> None:
    """Draw the curves of an arm's seeds light, and their mean bold."""
    if not seeds:
        return
    colour = svg.arm_colour(index)
    for budgets, losses in seeds:
        ax.plot(budgets, losses, linewidth=0.9, alpha=0.45, color=colour)
    # Where a clock decides, seeds are measured at slightly different times.
    common = min((budgets for budgets, _ in seeds), key=len)
    means = np.mean([np.interp(common, *curve) for curve in seeds], axis=0)
    marker = svg.arm_marker(index)
    ax.plot(common, means, marker=marker, markersize=5, linewidth=2.2, color=colour)


def _teacher_loss(results: Results, figure: str) -> float | None:
    """Return a teacher's held-out loss by its own head or by a probe; None if it is not known."""
    if figure == "mlm_loss":
        return results.teacher.mlm_loss if results.teacher else None
    references = summary.references(results)
    losses = [
        metrics[figure].mean
        for name, metrics in references.items()
        if name.startswith("teacher") and figure in metrics
    ]
    return mean(losses) if losses else None


def _along(budget: Budget) -> tuple[float, str, Callable[[float], str]]:
    """Return the end of the axis along a budget, its label, and how amounts are written."""
    if budget.kind == "hours":
        size, unit = numbers.clock_unit(3600 * budget.amount)
        return (
            3600 * budget.amount / size,
            f"{unit} of {numbers.listed(budget.clock)}",
            lambda x: f"{x:g}",
        )
    if budget.kind == "flops":
        return budget.amount, "FLOPs charged", numbers.flops
    return budget.amount, "tokens seen, padding counted", numbers.tokens


def layers(results: Results) -> Markup | None:
    """Draw probe scores by layer on the test rows; rings mark layers chosen on dev."""
    probes = [e for e in results.endpoints if e.kind == "probe" and _probed(results.runs, e)]
    if not probes:
        return None
    # Two plots a row; what is left over of the last row stays empty.
    columns = min(len(probes), 2)
    rows = -(-len(probes) // columns)
    with svg.style():
        figure = Figure(figsize=({1: WIDTH / 1.7, 2: WIDTH}[columns], 3.3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(probes) :]:
            ax.set_visible(False)
        for ax, endpoint in zip(axes, probes, strict=False):
            for index, arm in enumerate(results.arms):
                details = _probed(runs(results, arm), endpoint)
                # Arms stand a little beside one another, so that none hides another.
                aside = 0.05 * (index - (len(results.arms) - 1) / 2)
                look = {
                    "color": svg.arm_colour(index),
                    "marker": svg.arm_marker(index),
                    "markersize": 5,
                }
                _layer_line(ax, details, aside, {**look, "linewidth": 1.7})
            _levels(ax, results, endpoint)
            ax.set_title(task_of(endpoint))
            ax.set_xlabel("layer (0: embeddings)")
            ax.set_ylabel(f"{endpoint.unit}, test rows")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg.render(figure, "layers", "Linear probe score by layer, for each arm.")


def _probed(rows: Sequence[RunResult | Reference], endpoint: Endpoint) -> list[ProbedLayers]:
    """Return the probes of an endpoint, run by run or reference by reference."""
    probes = [probed_layers(row, endpoint.name) for row in rows]
    return [probe for probe in probes if probe is not None]


def _layer_line(
    ax: Axes, details: Sequence[ProbedLayers], aside: float, look: dict[str, Any]
) -> None:
    """Draw an arm's scores by layer, mean and deviation, with rings around chosen layers."""
    if not details:
        return
    points = _by_layer(details)
    # A single seed has no deviation.
    x = [layer + aside for layer in points]
    means = [point.mean for point in points.values()]
    deviations = [point.sd or 0.0 for point in points.values()]
    ax.errorbar(x, means, deviations, elinewidth=1.1, **look)
    ring: dict[str, Any] = {
        "markerfacecolor": "none",
        "markeredgecolor": look["color"],
        "markeredgewidth": 1.2,
    }
    # Seeds may have chosen different layers.
    for layer in {probe.layer for probe in details}:
        ax.plot(layer + aside, points[layer].mean, "o", markersize=12, **ring)


def _by_layer(details: Sequence[ProbedLayers]) -> dict[int, Spread]:
    """Return the spread of test scores over seeds, by layer."""
    scores: dict[int, list[float]] = {}
    for probe in details:
        for layer in probe.layers:
            scores.setdefault(layer.layer, []).append(layer.test)
    spreads = {}
    for number, values in sorted(scores.items()):
        if spread := summary.spread(values):
            spreads[number] = spread
    return spreads


def _levels(ax: Axes, results: Results, endpoint: MeasuredEndpoint) -> None:
    """Draw the majority class and reference models, by layer or by their best one.

    A model is drawn by layer where it has as many layers as the student.
    """
    ax.margins(y=0.1)
    names: dict[str, float] = {}
    for name, metrics in summary.references(results).items():
        details = _probed([row for row in results.references if row.name == name], endpoint)
        if details and len(details[0].layers) == results.student.layers + 1:
            points = _by_layer(details)
            means = [point.mean for point in points.values()]
            ax.plot(
                list(points),
                means,
                color=svg.MUTED,
                linewidth=1.3,
                linestyle=(0, (2, 2)),
                zorder=1.5,
            )
            names[name] = means[-1]
        elif endpoint.name in metrics:
            best = metrics[endpoint.name].mean
            names[f"{name}, best layer"] = best
            hline(ax, best)
    if endpoint.baseline is not None:
        names["majority class"] = endpoint.baseline
        hline(ax, endpoint.baseline)
    label_lines(ax, names)
