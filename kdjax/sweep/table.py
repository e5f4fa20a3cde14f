"""A sweep in the terminal: each arm's scores over the budgets, and what they say."""

from __future__ import annotations

from itertools import chain

from rich import console
from rich.text import Text

from kdjax.report import ngram_losses, numbers
from kdjax.report.phrases import listed_settings
from kdjax.report.wide_table import TableRow, WideTable
from kdjax.results.verdicts import Endpoint
from kdjax.sweep.schema import Group, SweepResults
from kdjax.sweep.trunk import costs_paid_and_alone
from kdjax.sweep.verdict import budgets_text, gap_sentences, headline, sentences


def summary(sweep: SweepResults) -> console.Group:
    """Return the headline, then a table for each endpoint and group, each with its sentences.

    Args:
        sweep: sweep to show.
    """
    parts: list[WideTable | Text] = [Text(headline(sweep), style="bold")]
    for group in sweep.groups:
        for endpoint in sweep.endpoints:
            parts.append(_table(sweep, group, endpoint))
            # Text, not markup: a name may hold square brackets.
            parts += map(Text, sentences(sweep, group, endpoint))
    if cost := costs_paid_and_alone(sweep.rows):
        parts.append(Text(cost.line()))
    parts += map(Text, gap_sentences(sweep))
    return console.Group(*parts)


def _table(sweep: SweepResults, group: Group, endpoint: Endpoint) -> WideTable:
    """Return the table of one endpoint: a row for each arm, a column for each budget."""
    curves = group.curves[endpoint.name]
    budgets = sorted({point.budget for point in chain.from_iterable(curves.values())})
    caption = (
        f"{endpoint.label} ({endpoint.unit}, {endpoint.better} is better), mean ± sd over seeds"
    )
    if group.settings:
        caption += f"; {listed_settings(group.settings)}"

    # A column for each budget that some arm has; a dash where an arm lacks it.
    rows = []
    for arm in endpoint.arms:
        points = {point.budget: numbers.spread(point.mean, point.sd) for point in curves[arm]}
        rows.append(TableRow(arm, [points.get(budget, "–") for budget in budgets]))
    # Under the arms, what counts of the text alone reach.
    losses = ngram_losses.endpoint_losses(group.ngram_losses, endpoint.name, endpoint.unit)
    for label, nats in losses.items():
        rows.append(TableRow(label, [numbers.score(nats)] * len(budgets), reference=True))
    return WideTable(
        caption, "arm", [budgets_text([budget], sweep.kind) for budget in budgets], rows
    )
