"""The text's own cross-entropies beside the losses of models, in tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from kdjax.report.axes import draw_hline, label_lines
from kdjax.results.text import CountedLosses
from kdjax.results.verdicts import Endpoint

LABELS = {
    "unigram": "unigram",
    "left_neighbor": "left neighbour",
    "both_neighbors": "both neighbours",
}
"""Field of `CountedLosses` -> what tables and figures call it."""
UNIT = "nats"
"""The unit of the endpoints that these numbers can stand beside."""
MEANING = (
    "Unigram, left neighbour and both neighbours: the held-out text's cross-entropy by counts of "
    "its training part alone: of a token, of a token given the one before it, and given the ones "
    "before and after it, both visible."
)
"""What a page says under a table that has them."""


def endpoint_losses(losses: CountedLosses | None, endpoint: str, unit: str) -> dict[str, float]:
    """Return the n-gram losses beside an endpoint's values, by label.

    Args:
        losses: the text's own cross-entropies; None where there are none.
        endpoint: name of the endpoint.
        unit: unit of the endpoint's values.

    Returns:
        Label to nats; empty where the endpoint is no loss in nats, or one on another text
        (`mlm_loss.NAME`), or nothing was counted.
    """
    # An endpoint on another text or task has its name behind a dot.
    if losses is None or unit != UNIT or "." in endpoint:
        return {}
    return {label: getattr(losses, name) for name, label in LABELS.items()}


def rows(
    losses: CountedLosses | None, endpoints: Sequence[Endpoint]
) -> dict[str, list[float | None]]:
    """Return the rows of a table whose columns are endpoints.

    Args:
        losses: the text's own cross-entropies; None where there are none.
        endpoints: endpoints in the order of the columns.

    Returns:
        Label to a number for each endpoint, None where it is no loss; empty where none of them is.
    """
    columns = [endpoint_losses(losses, endpoint.name, endpoint.unit) for endpoint in endpoints]
    if not any(columns):
        return {}
    table = {}
    for label in LABELS.values():
        table[label] = [column.get(label) for column in columns]
    return table


def draw(
    ax: Axes,
    levels: Mapping[str, float],
    *,
    extend: bool = True,
    beside: Mapping[str, float] | None = None,
) -> None:
    """Draw dashed lines across a figure of losses, named at its right edge.

    Args:
        ax: the plot, with its curves drawn.
        levels: name to height, for instance those of `endpoint_losses` and a teacher's loss.
        extend: whether the plot grows until it shows all of them; else those within it are drawn.
        beside: other names at the right edge and their heights, for instance of curves; no line is
            drawn for them.
    """
    # An axis may be turned around.
    low, high = sorted(ax.get_ylim())
    shown = {name: y for name, y in levels.items() if extend or low <= y <= high}
    for y in shown.values():
        draw_hline(ax, y)
    # All names at once: they are moved apart where they would touch.
    label_lines(ax, {**shown, **(beside or {})})
