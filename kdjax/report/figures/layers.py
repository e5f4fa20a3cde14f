"""Scores of linear probes by layer, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdjax.report import summary, svg
from kdjax.report.averages import runs
from kdjax.report.axes import WIDTH, draw_hline, label_lines
from kdjax.report.summary import Spread, task_of
from kdjax.results.runs import ProbedLayers, ReferenceModel, RunResult, probed_layers
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, MeasuredEndpoint


def draw(results: Results) -> Markup | None:
    """Draw probe scores by layer on the test rows; rings mark layers chosen on dev."""
    probes = [e for e in results.endpoints if e.kind == "probe" and _probed(results.runs, e)]
    if not probes:
        return None
    # Two plots a row; what is left over of the last row stays empty.
    columns = min(len(probes), 2)
    rows = -(-len(probes) // columns)
    # A plot that stands alone is not stretched over the page.
    width = WIDTH / 1.7 if columns == 1 else WIDTH
    with svg.style():
        figure = Figure(figsize=(width, 3.3 * rows))
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


def _probed(rows: Sequence[RunResult | ReferenceModel], endpoint: Endpoint) -> list[ProbedLayers]:
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
    """Draw the best constant answer and reference models, by layer or by their best one.

    A model is drawn by layer where it has as many layers as the student.
    """
    ax.margins(y=0.1)
    names: dict[str, float] = {}
    for name, metrics in summary.reference_spreads(results).items():
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
            draw_hline(ax, best)
    if endpoint.baseline is not None:
        names["best constant"] = endpoint.baseline
        draw_hline(ax, endpoint.baseline)
    label_lines(ax, names)
