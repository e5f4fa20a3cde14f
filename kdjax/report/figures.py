"""The report's figures. Each returns an `<svg>` element, or None where the study has nothing to
show in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdjax.budget.accounting import ACCOUNTS, Budget
from kdjax.report import numbers, reference_losses, summary, svg
from kdjax.report.axes import WIDTH, hline, label_lines, linear, margin_text, truncate
from kdjax.report.summary import Spread, task_of
from kdjax.report.usage import mean, paid_for, runs
from kdjax.results.schema import (
    Endpoint,
    MeasuredEndpoint,
    ProbedLayers,
    Reference,
    Results,
    RunResult,
    probed_layers,
)


def differences(results: Results) -> Markup | None:
    """Forest plot: each arm's paired difference to the yardstick with its interval, endpoint by
    endpoint.

    Endpoints with the same unit share an axis, which is turned so that better lies to the right.
    """
    other = results.baseline_arm
    panels: dict[tuple[str, str], list[tuple[Endpoint | None, str]]] = {}
    for endpoint in results.endpoints:
        found = [
            arm for arm in results.arms if arm != other and _shown(results, endpoint, arm, other)
        ]
        if found:
            rows = panels.setdefault((endpoint.unit, endpoint.better), [])
            rows += [(None, endpoint.label), *((endpoint, arm) for arm in found)]
    if not panels:
        return None
    heights = [len(rows) for rows in panels.values()]
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.245 * sum(heights) + 0.68 * len(heights)))
        axes = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})[
            :, 0
        ]
        for ax, ((unit, better), rows) in zip(axes, panels.items(), strict=True):
            _forest(ax, results, rows, other)
            ax.set_xlabel(
                f"difference to {truncate(other)} ({unit}); better than {truncate(other)} →",
                loc="right",
            )
            if better == "lower":
                ax.invert_xaxis()
        return svg.render(
            figure,
            "differences",
            f"Paired differences to {other} with confidence intervals, by endpoint.",
        )


def _shown(results: Results, endpoint: Endpoint, arm: str, other: str) -> bool:
    found = summary.difference(results, endpoint, arm, other)
    return found is not None and found.mean is not None


def _forest(
    ax: Axes, results: Results, rows: Sequence[tuple[Endpoint | None, str]], other: str
) -> None:
    arms = list(results.arms)
    margin = results.config["evaluation"]["margin"]
    ax.axvspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axvline(0, color=svg.MUTED, linewidth=1)
    for y, (endpoint, arm) in enumerate(rows):
        if endpoint is None:
            continue
        found = summary.difference(results, endpoint, arm, other)
        if found is None or found.mean is None:
            continue
        index = arms.index(arm)
        colour = svg.arm_colour(index)
        text = numbers.signed(found.mean)
        ours, theirs = (summary.by_seed(results, name, endpoint) for name in (arm, other))
        seeds = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        ax.plot(
            seeds, [y] * len(seeds), "|", color=colour, markersize=8, markeredgewidth=1, alpha=0.55
        )
        if found.low is not None and found.high is not None:
            ax.plot(
                [found.low, found.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt"
            )
            text += f" {numbers.interval(found.low, found.high)}"
        filled = found.outcome in ("beats", "loses")
        ax.plot(
            found.mean,
            y,
            svg.arm_marker(index),
            markersize=7,
            markeredgewidth=1.6,
            markeredgecolor=colour,
            markerfacecolor=colour if filled else svg.PAGE,
        )
        word = {"beats": "beats", "loses": "loses", "ties": "ties", "unclear": "inconclusive"}[
            found.outcome
        ]
        margin_text(ax, y, text, 8)
        margin_text(ax, y, word, 158, weight="bold" if filled else "normal")
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [truncate(name) for _, name in rows])
    for label, (endpoint, _) in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if endpoint is None else "normal")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def spending(results: Results) -> Markup | None:
    """Stacked bars: FLOPs of the mean run of each arm by account, those that are not charged faint,
    and last.

    A budget of FLOPs is drawn, too. What is not charged can be far more than what is: then it is
    cut short, and its amount stands beside the bar.
    """
    if not results.runs:
        return None
    budget = results.budget
    paid = paid_for(results)
    amounts = {
        arm: {
            account: mean(run.spent[account] for run in runs(results, arm)) for account in ACCOUNTS
        }
        for arm in results.arms
    }
    counted = {arm: sum(of[account] for account in paid) for arm, of in amounts.items()}
    scale = budget.amount if budget.kind == "flops" else max(counted.values())
    edge = min(
        max(scale, *(sum(of.values()) for of in amounts.values())),
        2 * max(scale, *counted.values()),
    )
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.36 * len(amounts) + 0.75))
        ax = figure.subplots()
        for y, (arm, of) in enumerate(amounts.items()):
            left = 0.0
            for account in sorted(ACCOUNTS, key=lambda account: account not in paid):
                seen = max(0.0, min(of[account], edge - left))
                counts = account in paid
                if seen:
                    look: dict[str, Any] = {
                        "color": svg.part_colour(ACCOUNTS.index(account)),
                        "edgecolor": svg.PAGE,
                    }
                    ax.barh(
                        y, seen, 0.66, left, linewidth=0.6, alpha=1 if counts else svg.FAINT, **look
                    )
                if counts and seen > 0.05 * edge:
                    share = of[account] / (scale if budget.kind == "flops" else counted[arm])
                    ax.text(
                        left + seen / 2,
                        y,
                        f"{share:.1%}",
                        ha="center",
                        va="center",
                        color="#111111",
                    )
                left += of[account]
            if left > edge * (1 + 1e-9):
                margin_text(ax, y, f"→ {numbers.flops(left)}", 4, color=svg.MUTED)
        if budget.kind == "flops":
            ax.axvline(scale, color=svg.INK, linewidth=1.2, linestyle=(0, (4, 2)))
        ax.set_ylim(len(amounts) - 0.5, -0.5)
        ax.set_xlim(0, edge * 1.01)
        ax.set_yticks(range(len(amounts)), [truncate(arm) for arm in amounts])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        linear(
            ax,
            "FLOPs (dashed: the budget)" if budget.kind == "flops" else "FLOPs",
            numbers.flops,
        )
        return svg.render(figure, "spending", "FLOPs of a run by part, for each arm.")


def learning(results: Results, figure: str = "mlm_loss") -> Markup | None:
    """Draw a held-out loss along the budget: every seed light, the mean bold.

    Args:
        results: the content of results.json.
        figure: `mlm_loss`, which arms have that train the head, or `mlm_probe`, where it was
            measured along the way.

    Returns:
        None where no run has the figure.
    """
    arms = list(results.arms)
    curves: dict[str, list[list[dict[str, float]]]] = {}
    for arm in arms:
        points = [[point for point in run.curve if figure in point] for run in runs(results, arm)]
        if found := [run for run in points if run]:
            curves[arm] = found
    if not curves:
        return None
    loss = {"mlm_loss": "held-out MLM loss", "mlm_probe": "MLM probe, held-out loss"}[figure]
    level_of = _teacher_loss(results, figure)
    amount, label, show = _along(results.budget)
    with svg.style():
        canvas = Figure(figsize=(WIDTH, 3.3))
        whole, end = canvas.subplots(1, 2)
        late = list[float]()
        stop = amount
        for arm, found in curves.items():
            look: dict[str, Any] = {"color": svg.arm_colour(arms.index(arm))}
            seeds = [
                ([p["share"] * amount for p in run], [p[figure] for p in run]) for run in found
            ]
            # Where a clock decides, seeds are measured at slightly different times.
            places = min((at for at, _ in seeds), key=len)
            means = [
                mean(values)
                for values in zip(*(np.interp(places, *seed) for seed in seeds), strict=True)
            ]
            for ax in (whole, end):
                for at, losses in seeds:
                    ax.plot(at, losses, linewidth=0.9, alpha=0.45, **look)
                ax.plot(
                    places,
                    means,
                    marker=svg.arm_marker(arms.index(arm)),
                    markersize=5,
                    linewidth=2.2,
                    **look,
                )
            late += [
                loss for seed in seeds for at, loss in zip(*seed, strict=True) if at >= amount / 2
            ]
            # What is measured last may itself be on the clock
            stop = max(stop, *(at[-1] for at, _ in seeds))
        levels = reference_losses.of_endpoint(results.corpus.reference_losses, figure, "nats")
        if level_of is not None:
            levels["teacher"] = level_of
        reference_losses.draw(whole, levels)
        whole.set_xlim(0, stop)
        end.set_xlim(amount / 2, stop)
        if late:
            room = 0.08 * (max(late) - min(late)) or 0.01
            end.set_ylim(min(late) - room, max(late) + room)
            reference_losses.draw(end, levels, extend=False)
        for ax, title in ((whole, "The whole budget"), (end, "Its second half")):
            ax.set_title(title)
            ax.set_ylabel(f"{loss} (nats)")
            linear(ax, label, show)
        name = "learning" if figure == "mlm_loss" else "learning-probe"
        return svg.render(canvas, name, f"{loss[0].upper()}{loss[1:]} against {label}.")


def _teacher_loss(results: Results, figure: str) -> float | None:
    """The teacher's held-out loss by its own head, or by a probe; None where it is not known."""
    if figure == "mlm_loss":
        teacher = results.teacher
        return None if teacher is None else teacher.mlm_loss
    references = summary.references(results)
    losses = [
        metrics[figure].mean
        for name, metrics in references.items()
        if name.startswith("teacher") and figure in metrics
    ]
    return mean(losses) if losses else None


def _along(budget: Budget) -> tuple[float, str, Callable[[float], str]]:
    """The axis along a budget: its end, its label, and how amounts are written on it."""
    if budget.kind == "hours":
        size, unit = numbers.clock_unit(3600 * budget.amount)
        return (
            3600 * budget.amount / size,
            f"{unit} of {numbers.listed(budget.clock)}",
            lambda x: f"{x:g}",
        )
    label = {"flops": "FLOPs charged", "tokens": "tokens seen, padding counted"}[budget.kind]
    return budget.amount, label, numbers.flops if budget.kind == "flops" else numbers.tokens


def layers(results: Results) -> Markup | None:
    """Probe score by layer on the test rows, mean and sd over seeds; rings mark layers chosen on
    dev."""
    probes = [e for e in results.endpoints if e.kind == "probe" and _probed(results.runs, e)]
    if not probes:
        return None
    columns = min(len(probes), 2)
    rows = -(-len(probes) // columns)
    with svg.style():
        figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH / 1.7, 3.3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(probes) :]:
            ax.set_visible(False)
        for ax, endpoint in zip(axes, probes, strict=False):
            for index, arm in enumerate(results.arms):
                details = _probed([run for run in results.runs if run.arm == arm], endpoint)
                # So that arms do not hide one another
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
    """What a probe found, run by run (or reference by reference)."""
    probes = [probed_layers(row, endpoint.name) for row in rows]
    return [probe for probe in probes if probe is not None]


def _layer_line(
    ax: Axes, details: Sequence[ProbedLayers], aside: float, look: dict[str, Any]
) -> None:
    if not details:
        return
    points = _by_layer(details)
    places = [layer + aside for layer in points]
    deviations = [found.sd or 0.0 for found in points.values()]
    ax.errorbar(
        places, [found.mean for found in points.values()], deviations, elinewidth=1.1, **look
    )
    ring: dict[str, Any] = {
        "markerfacecolor": "none",
        "markeredgecolor": look["color"],
        "markeredgewidth": 1.2,
    }
    for layer in {one.layer for one in details}:
        ax.plot(layer + aside, points[layer].mean, "o", markersize=12, **ring)


def _by_layer(details: Sequence[ProbedLayers]) -> dict[int, Spread]:
    tested = [{layer.layer: layer.test for layer in one.layers} for one in details]
    found = {layer: summary.spread(seed[layer] for seed in tested) for layer in sorted(tested[0])}
    return {layer: spread for layer, spread in found.items() if spread is not None}


def _levels(ax: Axes, results: Results, endpoint: MeasuredEndpoint) -> None:
    """The reference models, by layer if they have the student's layers, else their best one; the
    majority class."""
    ax.margins(y=0.1)
    names: dict[str, float] = {}
    for name, metrics in summary.references(results).items():
        details = _probed([row for row in results.references if row.name == name], endpoint)
        if details and len(details[0].layers) == results.student.layers + 1:
            points = _by_layer(details)
            means = [found.mean for found in points.values()]
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
