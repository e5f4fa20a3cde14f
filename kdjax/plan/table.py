"""A plan in the terminal: the answer, tables of budgets, and how far to trust them."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdjax.plan.ranking import ranking
from kdjax.plan.schema import Bought, FittedPlan, Plan
from kdjax.plan.verdict import answers, headline, leader, sources
from kdjax.report import numbers


def summary(plan: Plan) -> Group:
    """Return the headline, a table of the budgets, and what each of the three sources says.

    Args:
        plan: plan to show.
    """
    # Text, not markup: a name may hold square brackets.
    parts: list[Table | Text] = [Text(headline(plan), style="bold"), _bought_table(plan)]
    fitted = FittedPlan.of(plan)
    if fitted is not None:
        parts += [_forecasts(fitted), *map(Text, answers(fitted).values())]
    for source, sentences in sources(plan).items():
        parts.append(Text.assemble((f"{source}: ", "bold"), " ".join(sentences)))
    return Group(*parts)


def _bought_table(plan: Plan) -> Table:
    """Return the table of what budgets buy."""
    title = Text("What a budget buys: steps, tokens (epochs)")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for arm in plan.arms:
        table.add_column(Text(arm), justify="right", overflow="fold")
    for n, flops in enumerate(plan.budgets):
        cells = [_bought(planned.bought[n]) for planned in plan.arms.values()]
        table.add_row(numbers.flops(flops), *cells)
    return table


def _bought(bought: Bought | None) -> str:
    """Return as text what a budget buys an arm."""
    if bought is None:
        return "less than a step"
    text = f"{numbers.count(bought.steps)}, {numbers.tokens(bought.tokens)}"
    # Text without an end has no epochs.
    if bought.epochs is None:
        return text
    return f"{text} ({bought.epochs:.3g})"


def _forecasts(fitted: FittedPlan) -> Table:
    """Return the table of what each arm is forecast to reach."""
    endpoint = fitted.pilot.endpoint
    better = numbers.ARROWS[endpoint.better]
    title = (
        f"Forecast {endpoint.label} ({endpoint.unit} {better}); extrapolated beyond "
        f"{numbers.flops(fitted.largest_budget)} FLOPs"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for arm in fitted.fits:
        table.add_column(Text(arm), justify="right", overflow="fold")
    table.add_column("BEATS all others", overflow="fold")

    # A dash where a budget buys an arm no step.
    for flops in fitted.plan.budgets:
        cells = []
        for law in fitted.fits.values():
            text = "–"
            if point := law.at(flops):
                text = f"{numbers.score(point.mean)} {numbers.between(point.low, point.high)}"
            cells.append(text)
        table.add_row(numbers.flops(flops), *cells, Text(leader(ranking(fitted, flops))))
    return table
