"""The figures of a plan whose pilot was fitted. Each returns an `<svg>` element, or None where it
would be empty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdjax.plan.standing import Contest, Plan, contests, reach, sided, yardstick
from kdjax.report import numbers, reference_losses, summary, svg
from kdjax.report.axes import WIDTH, compact_number, limits, logarithmic, margin_text, truncate
from kdjax.sweep.verdict import losses_of


def curves(found: Plan) -> Markup | None:
    """Each arm's fitted law with its interval, the pilot's runs, and what was predicted of budgets
    held out."""
    fits = {arm: fit for arm, fit in found["fits"].items() if fit["curve"]}
    if not fits:
        return None
    runs = found["pilot"]["runs"]
    endpoint = found["pilot"]["endpoint"]
    seen = [run["value"] for run in runs]
    ends = list[float]()
    with svg.style():
        figure = Figure(figsize=(WIDTH, 4.4))
        ax = figure.subplots()
        for arm, fit in fits.items():
            colour = _colour(found, arm)
            at, mean, low, high = (
                [p[name] for p in fit["curve"]] for name in ("flops", "mean", "low", "high")
            )
            ax.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
            for edge in (low, high):
                ax.plot(at, edge, color=colour, linewidth=0.7, alpha=0.55)
            ax.plot(
                at,
                mean,
                color=colour,
                linewidth=1.9,
                linestyle="-" if fit["usable"] else (0, (2, 2)),
            )
            _runs(ax, found, arm)
            seen += mean
            ends += [*low, *high]
        seen += _held(ax, found)
        span = max(seen) - min(seen) or 1.0
        limits(
            ax,
            seen + [min(max(end, min(seen) - span / 2), max(seen) + span / 2) for end in ends],
            0.05,
        )
        _budgets(ax, found, [p["flops"] for fit in fits.values() for p in fit["curve"]])
        _reach(ax, found)
        levels = reference_losses.of_endpoint(
            losses_of(found["pilot"]), endpoint["name"], endpoint["unit"]
        )
        reference_losses.draw(ax, levels, extend=False)
        ax.set_ylabel(f"{endpoint['unit']} ({endpoint['better']} is better)")
        return svg.render(
            figure,
            "laws",
            f"{endpoint['label']} over the budget: fitted laws and the pilot's runs.",
        )


def _colour(found: Plan, arm: str) -> str:
    return svg.arm_colour(list(found["arms"]).index(arm))


def _marker(found: Plan, arm: str) -> str:
    return svg.arm_marker(list(found["arms"]).index(arm))


def _runs(ax: Axes, found: Plan, arm: str) -> None:
    """The pilot's runs of an arm light; the mean of those of the recipe's size bold."""
    runs = [run for run in found["pilot"]["runs"] if run["arm"] == arm]
    colour = _colour(found, arm)
    size = found["arms"][arm]["parameters_without_embeddings"]
    ax.plot(
        [run["flops"] for run in runs],
        [run["value"] for run in runs],
        "o",
        color=colour,
        markersize=3,
        markeredgewidth=0,
        alpha=0.5,
    )
    for flops in sorted({run["flops"] for run in runs}):
        spread = summary.spread(
            r["value"] for r in runs if r["flops"] == flops and r["parameters"] == size
        )
        if spread is not None:
            ax.plot(flops, spread.mean, _marker(found, arm), color=colour, markersize=6)


def _held(ax: Axes, found: Plan) -> list[float]:
    """What the fit without the largest budget predicted for it, beside what was reached; returns
    the predictions."""
    rows = [row for check in found["held_out"] if check["budgets"] == 1 for row in check["arms"]]
    arms = list(found["arms"])
    shown = []
    for row in rows:
        if row["parameters"] != found["arms"][row["name"]]["parameters_without_embeddings"]:
            continue
        colour = _colour(found, row["name"])
        at = row["flops"] * 1.09 ** (1 + arms.index(row["name"]))
        ax.plot([at, at], [row["low"], row["high"]], color=colour, linewidth=1.3)
        ax.plot(
            at,
            row["predicted"],
            _marker(found, row["name"]),
            markersize=6,
            markerfacecolor=svg.PAGE,
            markeredgecolor=colour,
            markeredgewidth=1.4,
        )
        shown += [row["predicted"], row["low"], row["high"]]
    return shown


def _budgets(ax: Axes, found: Plan, drawn: Sequence[float]) -> None:
    """The axis of budgets."""
    budgets = [*found["budgets"], *found["pilot"]["budgets"]]
    logarithmic(
        ax,
        "budget: FLOPs",
        compact_number,
        sorted({*drawn, *(b for b in budgets if min(drawn) <= b <= max(drawn))}),
    )


def _reach(ax: Axes, found: Plan) -> None:
    """Where extrapolation begins."""
    ax.axvline(reach(found), color=svg.INK, linewidth=1.1, linestyle=(0, (4, 2)))
    ax.annotate(
        "extrapolated →",
        (reach(found), 1),
        (5, -4),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        va="top",
        color=svg.MUTED,
        fontsize=8.5,
    )


def differences(found: Plan) -> Markup | None:
    """Each arm's forecast difference to the yardstick, in the colour of whoever is told ahead;
    better is up."""
    other = yardstick(found)
    pairs = {
        one["a" if one["b"] == other else "b"]: one
        for one in contests(found)
        if other in (one["a"], one["b"])
    }
    shown = {arm: sided(one, arm) for arm, one in pairs.items()}
    if not shown:
        return None
    columns = min(len(shown), 2)
    rows = math.ceil(len(shown) / columns)
    with svg.style():
        figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH / 1.5, 3.5 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for ax, (arm, contest) in zip(axes, shown.items(), strict=False):
            _difference(ax, found, contest)
            ax.set_title(f"{truncate(arm, 24)} less {truncate(other, 24)}")
        return svg.render(
            figure,
            "differences",
            f"Forecast differences to {other} over the budget, with intervals.",
        )


def _difference(ax: Axes, found: Plan, contest: Contest) -> None:
    endpoint = found["pilot"]["endpoint"]
    margin = found["config"]["evaluation"]["margin"]
    points = contest["points"]
    colours = {
        "a wins": _colour(found, contest["a"]),
        "b wins": _colour(found, contest["b"]),
        "ties": svg.INK,
        "cannot tell": svg.MUTED,
    }
    ax.axhspan(-margin, margin, color=svg.RULE, alpha=0.55, linewidth=0)
    ax.axhline(0, color=svg.MUTED, linewidth=1)
    for one in contest["ranges"]:
        # A stretch goes on to the next one's first point, so that none of the curve is left out.
        inside = [n for n, p in enumerate(points) if one["low"] <= p["flops"] <= one["high"]]
        part = points[inside[0] : inside[-1] + 2]
        at, mean, low, high = ([p[name] for p in part] for name in ("flops", "mean", "low", "high"))
        ax.fill_between(at, low, high, color=colours[one["verdict"]], alpha=0.2, linewidth=0)
        ax.plot(at, mean, color=colours[one["verdict"]], linewidth=2)
    crossing = contest["crossing"]
    if crossing["value"] is not None:
        low = crossing["low"] or points[0]["flops"]
        high = crossing["high"] or points[-1]["flops"]
        ax.plot([low, high], [0, 0], color=svg.INK, linewidth=1.6)
        for end, mark in (("low", "<"), ("high", ">")):
            if crossing[end] is None:
                ax.plot(low if end == "low" else high, 0, mark, color=svg.INK, markersize=5)
        ax.plot(crossing["value"], 0, "|", color=svg.INK, markersize=13, markeredgewidth=2)
    means = [0.0, -margin, margin] + [p["mean"] for p in points]
    span = max(means) - min(means) or 1.0
    ends = [end for p in points for end in (p["low"], p["high"])]
    limits(ax, means + [min(max(end, min(means) - span), max(means) + span) for end in ends], 0.14)
    if endpoint["better"] == "lower":
        ax.invert_yaxis()
    _budgets(ax, found, [p["flops"] for p in points])
    ax.axvline(reach(found), color=svg.INK, linewidth=1.1, linestyle=(0, (4, 2)))
    _verdicts(ax, contest, colours)
    ax.set_ylabel(f"{endpoint['unit']}; better →")


def _verdicts(ax: Axes, contest: Contest, colours: Mapping[str, str]) -> None:
    """Along the top, what is told from where to where; left out where there is no room for the
    words."""
    words = {
        "a wins": f"{truncate(contest['a'], 14)} ahead",
        "b wins": f"{truncate(contest['b'], 14)} ahead",
        "ties": "ties",
        "cannot tell": "cannot tell",
    }
    whole = math.log(contest["points"][-1]["flops"] / contest["points"][0]["flops"])
    for one in contest["ranges"]:
        ax.plot(
            [one["low"], one["high"]],
            [1, 1],
            color=colours[one["verdict"]],
            linewidth=4,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
        )
        if math.log(one["high"] / one["low"]) > 0.024 * len(words[one["verdict"]]) * whole:
            ax.annotate(
                words[one["verdict"]],
                (math.sqrt(one["low"] * one["high"]), 1),
                (0, -5),
                xycoords=ax.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                va="top",
                color=svg.INK,
                fontsize=8.5,
                bbox={"facecolor": svg.PAGE, "edgecolor": "none", "pad": 1.0},
            )


def held_out(found: Plan) -> Markup | None:
    """Errors of the fits that had not seen the largest budgets, with their intervals; 0 is what was
    reached."""
    checks = [(check, [*check["arms"], *check["differences"]]) for check in found["held_out"]]
    if not checks:
        return None
    heights = [len(rows) + 0.6 for _, rows in checks]
    with svg.style():
        figure = Figure(figsize=(WIDTH, 0.26 * sum(heights) + 0.75 * len(checks)))
        axes = figure.subplots(
            len(checks), squeeze=False, gridspec_kw={"height_ratios": heights}, sharex=True
        )[:, 0]
        for ax, (check, rows) in zip(axes, checks, strict=True):
            _errors(ax, found, rows)
            ax.tick_params(axis="x", labelbottom=True)
            ax.set_title(
                "Without the largest budget"
                if check["budgets"] == 1
                else f"Without the {check['budgets']} largest budgets"
            )
        axes[-1].set_xlabel(f"predicted less reached ({found['pilot']['endpoint']['unit']})")
        return svg.render(
            figure, "held-out", "Errors of predictions for budgets that were held out."
        )


def _errors(ax: Axes, found: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
    ax.axvline(0, color=svg.INK, linewidth=1.1)
    sizes = {row["parameters"] for row in rows}
    for y, row in enumerate(rows):
        alone = row["name"] in found["arms"]
        colour = _colour(found, row["name"]) if alone else svg.MUTED
        if row["noise"]:
            ax.barh(y, 2 * row["noise"], 0.7, -row["noise"], color=svg.RULE, linewidth=0)
        ax.plot(
            [row["low"] - row["observed"], row["high"] - row["observed"]],
            [y, y],
            color=colour,
            linewidth=1.8,
        )
        ax.plot(
            row["error"],
            y,
            _marker(found, row["name"]) if alone else "d",
            markersize=6.5,
            markeredgewidth=1.5,
            markeredgecolor=colour,
            markerfacecolor=svg.PAGE if row["covered"] else colour,
        )
        deviations = "" if row["relative"] is None else f", {row['relative']:.1f} sd"
        margin_text(ax, y, f"{numbers.signed(row['error'])}{deviations}", 8)
        margin_text(
            ax,
            y,
            "inside" if row["covered"] else "outside",
            108,
            weight="normal" if row["covered"] else "bold",
        )
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [_row_name(row, len(sizes) > 1) for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _row_name(row: Mapping[str, Any], sizes: bool) -> str:
    name = truncate(row["name"].replace(" - ", f" {numbers.MINUS} "))
    return f"{name}, {compact_number(row['flops'])}" + (
        f", {compact_number(row['parameters'])} parameters" if sizes else ""
    )
