"""A sweep in the terminal: what it says, each arm's scores over the budgets, and where arms
overtake one another."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group as Parts
from rich.table import Table
from rich.text import Text

from kdjax.report import numbers, reference_losses
from kdjax.sweep.verdict import Endpoint, Group, Sweep, amounts, headline, losses_of, sentences


def summary(found: Sweep) -> Parts:
    """A table for each endpoint and combination of the other settings, and under it what it says of
    pairs of arms.

    Args:
        found: the content of sweep.json.
    """
    parts: list[Table | Text] = [Text(headline(found), style="bold")]
    for group in found["groups"]:
        for endpoint in found["endpoints"]:
            # Text, not markup: a name may hold square brackets.
            parts += [_table(found, group, endpoint), *map(Text, sentences(found, group, endpoint))]
    return Parts(*parts)


def _table(found: Sweep, group: Group, endpoint: Endpoint) -> Table:
    curves = group["curves"][endpoint["name"]]
    budgets = sorted({point["budget"] for curve in curves.values() for point in curve})
    where = numbers.settings(group["settings"])
    better = "↑" if endpoint["better"] == "higher" else "↓"
    title = (
        f"{endpoint['label']} ({endpoint['unit']} {better}), mean ± sd over "
        f"seeds{f'; {where}' if where else ''}"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("arm", no_wrap=True)
    for budget in budgets:
        table.add_column(Text(amounts([budget], found["kind"])), justify="right", overflow="fold")
    for arm in endpoint["arms"]:
        points = {
            point["budget"]: numbers.spread(point["mean"], point["sd"]) for point in curves[arm]
        }
        table.add_row(Text(arm), *(points.get(budget, "–") for budget in budgets))
    levels = reference_losses.of_endpoint(losses_of(group), endpoint["name"], endpoint["unit"])
    if levels:
        table.add_section()
    for label, nats in levels.items():
        table.add_row(Text(label), *([numbers.score(nats)] * len(budgets)), style="dim")
    return table
