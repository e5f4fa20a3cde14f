"""Held-out losses along the budget, as curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdjax.budget.accounting import Budget
from kdjax.report import ngram_losses, numbers, summary, svg
from kdjax.report.averages import mean, runs
from kdjax.report.axes import WIDTH, show_linear
from kdjax.report.phrases import listed
from kdjax.results.study import Results

NAMES = {"mlm_loss": "learning", "mlm_probe": "learning-probe"}
"""Figure of a run's curve -> name of its plot on the page."""
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Amounts of the budget spent, and a loss at each."""


def draw(results: Results, figure: str = "mlm_loss") -> Markup | None:
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
    loss = loss_of(figure)
    levels = levels_of(results, figure)
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
        ngram_losses.draw(whole, levels)
        whole.set_xlim(0, stop)
        second_half.set_xlim(amount / 2, stop)
        # The second half has a scale of its own: there arms differ by little.
        if late:
            room = 0.08 * (max(late) - min(late)) or 0.01
            second_half.set_ylim(min(late) - room, max(late) + room)
            ngram_losses.draw(second_half, levels, extend=False)
        for ax, title in ((whole, "The whole budget"), (second_half, "Its second half")):
            ax.set_title(title)
            ax.set_ylabel(f"{loss} (nats)")
            show_linear(ax, label, show)
        return svg.render(canvas, NAMES[figure], f"{loss[0].upper()}{loss[1:]} against {label}.")


def loss_of(figure: str) -> str:
    """Return what a figure of a run's curve is called."""
    return "MLM probe, held-out loss" if figure == "mlm_probe" else "held-out MLM loss"


def levels_of(results: Results, figure: str) -> dict[str, float]:
    """Return what a curve can be held against: counts of the text alone, and the teacher.

    Args:
        results: the content of results.json.
        figure: `mlm_loss` or `mlm_probe`.
    """
    levels = ngram_losses.endpoint_losses(results.corpus.ngram_losses, figure, "nats")
    teacher_loss = _teacher_loss(results, figure)
    if teacher_loss is not None:
        levels["teacher"] = teacher_loss
    return levels


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
    references = summary.reference_spreads(results)
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
            f"{unit} of {listed(budget.clock)}",
            lambda x: f"{x:g}",
        )
    if budget.kind == "flops":
        return budget.amount, "FLOPs charged", numbers.flops
    return budget.amount, "tokens seen, padding counted", numbers.tokens
