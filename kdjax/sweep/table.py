"""A sweep in the terminal: what it says, each arm's scores over the budgets, and where arms
overtake one another."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group as Parts
from rich.table import Table
from rich.text import Text

from kdjax.report import numbers, reference_losses
from kdjax.results.schema import Endpoint
from kdjax.sweep.schema import Group, SweepResults
from kdjax.sweep.verdict import amounts, headline, sentences


def summary(sweep: SweepResults) -> Parts:
    """Return a table for each endpoint and combination of the other settings, and under it what it
    says of pairs of arms.

    Args:
        sweep: the sweep.
    """
    parts: list[Table | Text] = [Text(headline(sweep), style="bold")]
    for group in sweep.groups:
        for endpoint in sweep.endpoints:
            parts.append(_table(sweep, group, endpoint))
            # Text, not markup: a name may hold square brackets.
            parts += map(Text, sentences(sweep, group, endpoint))
    return Parts(*parts)


def _table(sweep: SweepResults, group: Group, endpoint: Endpoint) -> Table:
    """Return the table of one endpoint: a row for each arm, a column for each budget."""
    curves = group.curves[endpoint.name]
    budgets = sorted({point.budget for curve in curves.values() for point in curve})
    better = {"higher": "↑", "lower": "↓"}[endpoint.better]
    title = f"{endpoint.label} ({endpoint.unit} {better}), mean ± sd over seeds"
    if group.settings:
        title += f"; {numbers.settings(group.settings)}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("arm", no_wrap=True)
    for budget in budgets:
        table.add_column(Text(amounts([budget], sweep.kind)), justify="right", overflow="fold")
    for arm in endpoint.arms:
        points = {point.budget: numbers.spread(point.mean, point.sd) for point in curves[arm]}
        table.add_row(Text(arm), *(points.get(budget, "–") for budget in budgets))

    # Under the arms, what counts of the text alone reach.
    levels = reference_losses.of_endpoint(group.reference_losses, endpoint.name, endpoint.unit)
    if levels:
        table.add_section()
    for label, nats in levels.items():
        table.add_row(Text(label), *([numbers.score(nats)] * len(budgets)), style="dim")
    return table
