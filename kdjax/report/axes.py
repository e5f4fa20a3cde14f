"""What figures share: width, names beside the plot, axes of amounts, limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kdjax.report import svg

WIDTH = 9.6
"""Inches of a figure across the page; the page scales it."""


def truncate(name: str, letters: int = 40) -> str:
    """Shorten a name so that it leaves room for the plot."""
    if len(name) <= letters:
        return name
    return f"{name[: letters - 1]}…"


def draw_hline(ax: Axes, y: float) -> None:
    """Draw a dashed line across the plot, for reference."""
    ax.axhline(y, color=svg.MUTED, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)


def label_lines(ax: Axes, levels: Mapping[str, float]) -> None:
    """Write names to the right of the plot, at their heights but clear of one another."""
    low, high = ax.get_ylim()
    least = 0.07 * (high - low)
    at = float("-inf")
    for name, height in sorted(levels.items(), key=lambda item: item[1]):
        at = max(height, at + least)
        write_margin_text(ax, at, truncate(name), 5, color=svg.MUTED, fontsize=8.5)


def write_margin_text(ax: Axes, y: float, text: str, points: float, **look: Any) -> None:
    """Write text beside the plot, so many points from its right edge.

    Args:
        ax: plot to write beside.
        y: height, in the plot's own units.
        text: the text.
        points: distance from the plot's right edge.
        **look: how the text looks, by matplotlib's names.
    """
    place: dict[str, Any] = {
        "xycoords": ax.get_yaxis_transform(),
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    ax.annotate(text, (1, y), (points, 0), va="center", **place, **look)


def show_linear(ax: Axes, label: str, show: Callable[[float], str]) -> None:
    """Show amounts along the plot, in equal steps from 0.

    Args:
        ax: plot of the amounts.
        label: label of the axis.
        show: writes an amount as text.
    """
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: show(x)))


def show_logarithmic(
    ax: Axes, label: str, show: Callable[[float], str], places: Sequence[float]
) -> None:
    """Show amounts along the plot, on a logarithmic scale.

    Args:
        ax: plot whose horizontal axis is set.
        label: name of what the amounts are.
        show: function that writes an amount.
        places: amounts that are drawn, ascending; marked if they are few and clear of one another.
    """
    low = places[0]
    high = places[-1]
    decades = math.log10(high / low)
    # A single amount has room of half its size.
    room = (high / low) ** 0.04 if high > low else 1.5
    ax.set_xscale("log")
    ax.set_xlim(low / room, high * room)
    ax.set_xlabel(label)
    if all(math.log10(b / a) > 0.14 * decades for a, b in pairwise(places)):
        ax.xaxis.set_major_locator(FixedLocator(list(places)))
    else:
        # The fewer decades, the more ticks in each.
        subs: tuple[float, ...] = (1.0, 2.0, 5.0)
        if decades > 3:
            subs = (1.0,)
        elif decades > 1.2:
            subs = (1.0, 3.0)
        ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: show(x)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", which="minor", length=0)


def compact_number(value: float) -> str:
    """Return an amount with the digits it needs, for instance `3e11`, `1.7e12`, `64,000`."""
    if value < 1e6:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def set_height(ax: Axes, visible: Iterable[float], room: float) -> None:
    """Set the height of a plot to what must be seen, and `room` times its span on either side.

    Args:
        ax: the plot.
        visible: heights that must be seen.
        room: free room on either side, as a multiple of their span.
    """
    values = list(visible)
    low = min(values)
    high = max(values)
    span = (high - low) or abs(high) * 0.1 or 1.0
    ax.set_ylim(low - room * span, high + room * span)
