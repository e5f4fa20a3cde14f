"""The figures of a sweep. Each returns an `<svg>` element, or None where the sweep has nothing to
show in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdjax.report import reference_losses, svg
from kdjax.report.axes import WIDTH, compact_number, limits, logarithmic, truncate
from kdjax.results.schema import CountedLosses
from kdjax.sweep.verdict import Endpoint, Group, Pair, Sweep, against, losses_of, rows_of, yardstick

Points = Sequence[Mapping[str, Any]]


def curves(found: Sweep, group: Group, endpoint: Endpoint, name: str) -> Markup | None:
    """Each arm over the budget, and beside it its paired difference to the yardstick and where that
    changes sign.

    Args:
        found: the content of sweep.json.
        group: a combination of the settings other than the budget.
        endpoint: which.
        name: of the figure, unique on the page.
    """
    told = {arm: points for arm, points in group["curves"][endpoint["name"]].items() if points}
    if not told:
        return None
    pairs = {
        arm: pair
        for arm, pair in against(group, endpoint, yardstick(found)).items()
        if any(point["difference"] is not None for point in pair["points"])
    }
    crossing = [arm for arm, pair in pairs.items() if pair["crossings"]]
    label, show = along(found["kind"])
    budgets = sorted({point["budget"] for points in told.values() for point in points})
    with svg.style():
        figure = Figure(figsize=(WIDTH if pairs else WIDTH / 1.7, 3.7 + 0.2 * len(crossing)))
        grid = figure.add_gridspec(
            2 if crossing else 1, 2 if pairs else 1, height_ratios=_heights(len(crossing))
        )
        ax = figure.add_subplot(grid[:, 0])
        _scores(ax, found, group, endpoint, told)
        reference_losses.draw(
            ax, reference_losses.of_endpoint(losses_of(group), endpoint["name"], endpoint["unit"])
        )
        ax.set_title("Scores")
        ax.set_ylabel(endpoint["unit"])
        logarithmic(ax, label, show, budgets)
        if pairs:
            beside = figure.add_subplot(grid[0, 1])
            _differences(beside, found, group, endpoint, pairs)
            logarithmic(beside, label, show, budgets)
        if crossing:
            strip = figure.add_subplot(grid[1, 1], sharex=beside)
            _strip(strip, found, {arm: pairs[arm] for arm in crossing})
            logarithmic(strip, label, show, budgets)
            beside.set_xlabel("")
            beside.tick_params(axis="x", labelbottom=False)
        return svg.render(
            figure, name, f"{endpoint['label']} over the budget, and differences between arms."
        )


def along(kind: str) -> tuple[str, Callable[[float], str]]:
    """The axis of budgets: its label, and how one is written."""
    if kind == "hours":
        return "budget: hours", lambda hours: f"{hours:g}"
    return f"budget: {'FLOPs' if kind == 'flops' else 'tokens'}", compact_number


def _heights(rows: int) -> list[float]:
    return [3.1, 0.28 + 0.2 * rows] if rows else [1]


def _aside(found: Sweep, arm: str, budgets: Sequence[float]) -> float:
    """A factor on budgets so that arms do not hide one another."""
    gaps = [b / a for a, b in pairwise(budgets)]
    index = found["arms"].index(arm)
    count = len(found["arms"])
    return float(min([*gaps, 3.0]) ** (0.08 * (index - (count - 1) / 2)))


def _scores(
    ax: Axes, found: Sweep, group: Group, endpoint: Endpoint, told: Mapping[str, Points]
) -> None:
    rows = rows_of(found, group)
    for arm, points in told.items():
        index = found["arms"].index(arm)
        budgets = [point["budget"] for point in points]
        look: dict[str, Any] = {"color": svg.arm_colour(index)}
        aside = _aside(found, arm, budgets)
        seeds = [row for row in rows if row["arm"] == arm and endpoint["name"] in row["metrics"]]
        ax.plot(
            [row["budget"] * aside for row in seeds],
            [row["metrics"][endpoint["name"]] for row in seeds],
            "o",
            markersize=3,
            markeredgewidth=0,
            alpha=0.45,
            **look,
        )
        ax.errorbar(
            [budget * aside for budget in budgets],
            [point["mean"] for point in points],
            [point["sd"] or 0.0 for point in points],
            marker=svg.arm_marker(index),
            markersize=5.5,
            linewidth=1.9,
            elinewidth=1.1,
            **look,
        )


def _differences(
    ax: Axes, found: Sweep, group: Group, endpoint: Endpoint, pairs: Mapping[str, Pair]
) -> None:
    """Differences to the yardstick with intervals; turned so that better is up."""
    other = yardstick(found)
    margin = found["config"]["evaluation"]["margin"]
    ax.axhspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axhline(0, color=svg.MUTED, linewidth=1)
    seen = [0.0, -margin, margin]
    ends = list[float]()
    for arm, pair in pairs.items():
        index = found["arms"].index(arm)
        colour = svg.arm_colour(index)
        points = [p for p in pair["points"] if p["difference"] is not None]
        aside = _aside(found, arm, [point["budget"] for point in points])
        budgets = [point["budget"] * aside for point in points]
        means = [point["difference"] for point in points]
        seeds = [
            (budget, one)
            for point, budget in zip(points, budgets, strict=True)
            for one in _paired(found, group, endpoint, (arm, other), point["budget"])
        ]
        ax.plot(
            *zip(*seeds, strict=True),
            "o",
            color=colour,
            markersize=3,
            markeredgewidth=0,
            alpha=0.45,
        )
        banded = [
            (budget, p["low"], p["high"])
            for budget, p in zip(budgets, points, strict=True)
            if p["low"] is not None
        ]
        if banded:
            at, low, high = zip(*banded, strict=True)
            ax.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
            ax.vlines(at, low, high, color=colour, linewidth=1.1, alpha=0.8)
            ends += [*low, *high]
        ax.plot(budgets, means, color=colour, linewidth=1.9)
        for budget, point in zip(budgets, points, strict=True):
            told = point["verdict"] in ("BEATS", "LOSES")
            ax.plot(
                budget,
                point["difference"],
                svg.arm_marker(index),
                markersize=6.5,
                markeredgewidth=1.5,
                markeredgecolor=colour,
                markerfacecolor=colour if told else svg.PAGE,
            )
        seen += means + [one for _, one in seeds]
    span = max(seen) - min(seen) or 1.0
    limits(ax, seen + [min(max(end, min(seen) - span), max(seen) + span) for end in ends], 0.06)
    if endpoint["better"] == "lower":
        ax.invert_yaxis()
    ax.set_title(f"Difference to {truncate(other, 24)}")
    ax.set_ylabel(f"{endpoint['unit']}; better →")


def _paired(
    found: Sweep, group: Group, endpoint: Endpoint, arms: tuple[str, str], budget: float
) -> list[float]:
    """Differences of single seeds at a budget."""
    ours, theirs = (
        {
            row["seed"]: row["metrics"][endpoint["name"]]
            for row in rows_of(found, group)
            if row["arm"] == arm and row["budget"] == budget and endpoint["name"] in row["metrics"]
        }
        for arm in arms
    )
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def _strip(ax: Axes, found: Sweep, pairs: Mapping[str, Pair]) -> None:
    """Where means cross, with intervals; an arrow where one goes on beyond the budgets looked
    at."""
    for y, (arm, pair) in enumerate(pairs.items()):
        index = found["arms"].index(arm)
        colour = svg.arm_colour(index)
        ends = (pair["points"][0]["budget"], pair["points"][-1]["budget"])
        for crossing in pair["crossings"]:
            low = crossing["low"] or ends[0]
            high = crossing["high"] or ends[1]
            ax.plot([low, high], [y, y], color=colour, linewidth=1.8)
            ax.plot(crossing["at"], y, "|", color=colour, markersize=11, markeredgewidth=2.2)
            if crossing["low"] is None:
                ax.plot(low, y, "<", color=colour, markersize=5)
            if crossing["high"] is None:
                ax.plot(high, y, ">", color=colour, markersize=5)
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    ax.set_yticks(range(len(pairs)), [f"{truncate(arm, 14)} crosses" for arm in pairs])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)


def isoflop(found: Sweep, endpoint: Endpoint, profiles: Points, name: str) -> Markup:
    """Endpoint against the student's size: a plot for each arm, a curve for each budget, optima
    where there are any.

    Args:
        found: the content of sweep.json.
        endpoint: which.
        profiles: those of the endpoint, in one combination of what else was swept; at least one.
        name: of the figure, unique on the page.
    """
    arms = list(dict.fromkeys(profile["arm"] for profile in profiles))
    budgets = sorted({profile["budget"] for profile in profiles})
    levels = reference_losses.of_endpoint(
        _losses_beside(found, profiles[0]["settings"]), endpoint["name"], endpoint["unit"]
    )
    sizes = sorted({point["parameters"] for profile in profiles for point in profile["points"]})
    columns = min(len(arms), 2)
    rows = math.ceil(len(arms) / columns)
    _, show = along(found["kind"])
    with svg.style():
        figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH / 1.7, 3.3 * rows))
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax in axes[len(arms) :]:
            ax.set_visible(False)
        for ax, arm in zip(axes, arms, strict=False):
            own = [profile for profile in profiles if profile["arm"] == arm]
            for profile in own:
                strength = (
                    1.0
                    if len(budgets) == 1
                    else 0.35 + 0.65 * budgets.index(profile["budget"]) / (len(budgets) - 1)
                )
                _profile(ax, profile, found["arms"].index(arm), strength)
            ax.set_title(truncate(arm))
            ax.set_ylabel(endpoint["unit"])
            ax.tick_params(labelleft=True)
            logarithmic(ax, "parameters without embeddings", _parameters, sizes)
        for ax, arm in zip(axes, arms, strict=False):
            last = {show(p["budget"]): p["points"][-1]["mean"] for p in profiles if p["arm"] == arm}
            reference_losses.draw(ax, levels, extend=False, beside=last)
        return svg.render(
            figure,
            name,
            f"{endpoint['label']} against the student's size, for each arm and budget.",
        )


def _losses_beside(found: Sweep, settings: Mapping[str, Any]) -> CountedLosses | None:
    """The reference losses of the text in the first combination of swept settings that has
    these."""
    for group in found["groups"]:
        if all(group["settings"].get(name) == value for name, value in settings.items()):
            return losses_of(group)
    return None


def _profile(ax: Axes, profile: Mapping[str, Any], index: int, strength: float) -> None:
    points = profile["points"]
    optimum = profile["optimum"]
    look: dict[str, Any] = {"color": svg.arm_colour(index), "alpha": strength}
    sizes = [p["parameters"] for p in points]
    means = [p["mean"] for p in points]
    ax.errorbar(
        sizes,
        means,
        [point["sd"] or 0.0 for point in points],
        marker=svg.arm_marker(index),
        markersize=5,
        linewidth=1.8,
        elinewidth=1.1,
        **look,
    )
    if optimum is None:
        return
    at = float(np.interp(math.log(optimum["parameters"]), np.log(sizes), means))
    if optimum["low"] is not None:
        ax.plot([optimum["low"], optimum["high"]], [at, at], color=svg.INK, linewidth=1.4)
    ax.plot(optimum["parameters"], at, "*", color=svg.INK, markersize=11, markeredgecolor=svg.PAGE)


def _parameters(value: float) -> str:
    """A number of parameters, for instance `1.4M`."""
    size, unit = next(
        ((s, u) for s, u in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if value >= s), (1.0, "")
    )
    return f"{value / size:.3g}{unit}"
