"""The report's figures. Each returns an `<svg>` element, or None where the study has nothing to show in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kdjax.budget.price import PARTS
from kdjax.study import numbers, summary, svg
from kdjax.study.summary import Endpoint, Results

WIDTH = 9.6
"""Inches of a figure across the page; the page scales it."""


def differences(results: Results) -> Markup | None:
    """Forest plot: each arm's paired difference to the yardstick with its interval, endpoint by endpoint.

    Endpoints with the same unit share an axis, which is turned so that better lies to the right.
    """
    other = summary.yardstick(results)
    panels: dict[tuple[str, str], list[tuple[Endpoint | None, str]]] = {}
    for endpoint in results["endpoints"]:
        found = [arm for arm in results["arms"] if arm != other and _shown(results, endpoint, arm, other)]
        if found:
            rows = panels.setdefault((endpoint["unit"], endpoint["better"]), [])
            rows += [(None, endpoint["label"]), *((endpoint, arm) for arm in found)]
    if not panels:
        return None
    heights = [len(rows) for rows in panels.values()]
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.245 * sum(heights) + 0.68 * len(heights)))
        axes = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for ax, ((unit, better), rows) in zip(axes, panels.items(), strict=True):
            _forest(ax, results, rows, other)
            ax.set_xlabel(f"difference to {_short(other)} ({unit}); better than {_short(other)} →", loc="right")
            if better == "lower":
                ax.invert_xaxis()
        return svg.render(figure, "differences", f"Paired differences to {other} with confidence intervals, by endpoint.")


def _shown(results: Results, endpoint: Endpoint, arm: str, other: str) -> bool:
    found = summary.difference(results, endpoint, arm, other)
    return found is not None and found.mean is not None


def _forest(ax: Axes, results: Results, rows: Sequence[tuple[Endpoint | None, str]], other: str) -> None:
    arms, margin = list(results["arms"]), results["config"]["evaluation"]["margin"]
    ax.axvspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axvline(0, color=svg.MUTED, linewidth=1)
    for y, (endpoint, arm) in enumerate(rows):
        if endpoint is None:
            continue
        found = summary.difference(results, endpoint, arm, other)
        if found is None or found.mean is None:
            continue
        index = arms.index(arm)
        colour, text = svg.arm_colour(index), numbers.signed(found.mean)
        ours, theirs = (summary.by_seed(results, name, endpoint) for name in (arm, other))
        seeds = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        ax.plot(seeds, [y] * len(seeds), "|", color=colour, markersize=8, markeredgewidth=1, alpha=0.55)
        if found.low is not None and found.high is not None:
            ax.plot([found.low, found.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
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
        beside = ax.get_yaxis_transform()
        ax.text(1.01, y, text, transform=beside, va="center")
        word = {"beats": "beats", "loses": "loses", "ties": "ties", "unclear": "inconclusive"}[found.outcome]
        ax.text(1.27, y, word, transform=beside, va="center", weight="bold" if filled else "normal")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [_short(name) for _, name in rows])
    for label, (endpoint, _) in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_weight("bold" if endpoint is None else "normal")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def spending(results: Results) -> Markup | None:
    """Stacked bars: FLOPs spent by part, the mean run of each arm, against the budget."""
    spent = {
        arm: [run["spent"] for run in results["runs"] if run["arm"] == arm]
        for arm in results["arms"]
        if any(run["arm"] == arm for run in results["runs"])
    }
    if not spent:
        return None
    budget = results["budget"]["flops"]
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.36 * len(spent) + 0.75))
        ax = figure.subplots()
        for y, rows in enumerate(spent.values()):
            left = 0.0
            for n, part in enumerate(PARTS):
                width = sum(row[part] for row in rows) / len(rows)
                ax.barh(y, width, 0.66, left, color=svg.part_colour(n), edgecolor=svg.PAGE, linewidth=0.6)
                if width > 0.05 * budget:
                    share = numbers.percent(width / budget)
                    ax.text(left + width / 2, y, share, ha="center", va="center", color="#111111")
                left += width
        ax.axvline(budget, color=svg.INK, linewidth=1.2, linestyle=(0, (4, 2)))
        ax.set_ylim(len(spent) - 0.5, -0.5)
        ax.set_xlim(0, budget * 1.01)
        ax.set_yticks(range(len(spent)), [_short(arm) for arm in spent])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", visible=False)
        _flops_axis(ax, "FLOPs spent (dashed: the budget)")
        return svg.render(figure, "spending", "FLOPs spent by part of the step, for each arm.")


def learning(results: Results) -> Markup | None:
    """Held-out MLM loss against FLOPs spent: every seed light, the mean bold; only arms that train the head."""
    arms = list(results["arms"])
    curves = {
        arm: found
        for arm in arms
        if results["arms"][arm]["trains_mlm_head"]
        and (found := [run["curve"] for run in results["runs"] if run["arm"] == arm and run["curve"]])
    }
    if not curves:
        return None
    with svg.style():
        figure = Figure(figsize=(WIDTH, 3.5))
        ax = figure.subplots()
        for arm, runs in curves.items():
            look: dict[str, Any] = {"color": svg.arm_colour(arms.index(arm))}
            for run in runs:
                ax.plot([p["flops"] for p in run], [p["mlm_loss"] for p in run], linewidth=0.9, alpha=0.4, **look)
            points = [{p["flops"]: p["mlm_loss"] for p in run} for run in runs]
            shared = sorted(set.intersection(*(set(p) for p in points)))
            means = [sum(p[at] for p in points) / len(points) for at in shared]
            ax.plot(shared, means, marker=svg.arm_marker(arms.index(arm)), markersize=5, linewidth=2.2, **look)
            if shared:
                _beside(ax, shared[-1], means[-1], f"{_short(arm)} {numbers.score(means[-1])}", look["color"])
        teacher = results["teacher"]
        if teacher is not None and teacher["mlm_loss"] is not None:
            _line(ax, teacher["mlm_loss"], f"teacher {numbers.score(teacher['mlm_loss'])}")
        ax.set_ylabel("held-out MLM loss (nats)")
        ax.set_xlim(0, results["budget"]["flops"] * 1.16)
        _flops_axis(ax, "FLOPs spent, teacher included")
        return svg.render(figure, "learning", "Held-out MLM loss against FLOPs spent.")


def layers(results: Results) -> Markup | None:
    """Probe score by layer on the test rows: mean over seeds with the standard deviation; rings mark the layers chosen on dev."""
    probes = [
        endpoint
        for endpoint in results["endpoints"]
        if endpoint["kind"] == "probe" and any(endpoint["name"] in run["details"] for run in results["runs"])
    ]
    if not probes:
        return None
    columns = min(len(probes), 2)
    rows = -(-len(probes) // columns)
    references = summary.references(results)
    with svg.style():
        figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH / 1.7, 3.3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(probes) :]:
            ax.set_visible(False)
        for ax, endpoint in zip(axes, probes, strict=False):
            for index, arm in enumerate(results["arms"]):
                runs = [run for run in results["runs"] if run["arm"] == arm and endpoint["name"] in run["details"]]
                _layer_line(ax, [run["details"][endpoint["name"]] for run in runs], index, len(results["arms"]))
            for name, metrics in references.items():
                if endpoint["name"] in metrics:
                    _line(ax, metrics[endpoint["name"]].mean, f"{name}, best layer")
            if endpoint["baseline"] is not None:
                _line(ax, endpoint["baseline"], "majority class", linestyle=(0, (1, 2)))
            ax.set_title(endpoint["label"])
            ax.set_xlabel("layer (0: embeddings)")
            ax.set_ylabel(f"{endpoint['unit']}, test rows")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.margins(y=0.1)
        return svg.render(figure, "layers", "Linear probe score by layer, for each arm.")


def _layer_line(ax: Axes, details: Sequence[Mapping[str, Any]], index: int, arms: int) -> None:
    if not details:
        return
    colour, marker = svg.arm_colour(index), svg.arm_marker(index)
    tested = [{row["layer"]: row["test"] for row in one["layers"]} for one in details]
    spreads = {layer: summary.spread(seed[layer] for seed in tested if layer in seed) for layer in sorted(tested[0])}
    aside = 0.05 * (index - (arms - 1) / 2)  # so that arms do not hide one another
    points = {layer: found for layer, found in spreads.items() if found is not None}
    ax.errorbar(
        [layer + aside for layer in points],
        [found.mean for found in points.values()],
        [found.sd or 0.0 for found in points.values()],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.7,
        elinewidth=1.1,
    )
    for layer in {one["layer"] for one in details} & set(points):
        ring = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.2}
        ax.plot(layer + aside, points[layer].mean, "o", **ring)


def _line(ax: Axes, y: float, text: str, linestyle: Any = (0, (5, 3))) -> None:
    """A named horizontal line."""
    ax.axhline(y, color=svg.MUTED, linewidth=1.1, linestyle=linestyle, zorder=1)
    ax.annotate(
        text, (0, y), (4, 3), xycoords=ax.get_yaxis_transform(), textcoords="offset points", color=svg.MUTED, fontsize=8.5
    )


def _beside(ax: Axes, x: float, y: float, text: str, colour: str) -> None:
    ax.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", color=colour, weight="bold")


def _flops_axis(ax: Axes, label: str) -> None:
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.flops(x)))


def _short(name: str) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= 32 else f"{name[:31]}…"
