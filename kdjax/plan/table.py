"""A plan in the terminal: the answer, tables of budgets, and how far to trust them."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from kdjax.plan.ranking import ranking
from kdjax.plan.schema import Bought, FittedPlan, Plan
from kdjax.plan.verdict import answers, headline, leader, sources
from kdjax.report import numbers
from kdjax.report.wide_table import TableRow, WideTable


def summary(plan: Plan) -> Group:
    """Return the headline, a table of the budgets, and what each of the three sources says.

    Args:
        plan: plan to show.
    """
    # Text, not markup: a name may hold square brackets.
    parts: list[WideTable | Text] = [Text(headline(plan), style="bold"), _bought_table(plan)]
    fitted = FittedPlan.from_plan(plan)
    if fitted is not None:
        parts += [_forecasts(fitted), *map(Text, answers(fitted).values())]
    for source, sentences in sources(plan).items():
        parts.append(Text.assemble((f"{source}: ", "bold"), " ".join(sentences)))
    return Group(*parts)


def _bought_table(plan: Plan) -> WideTable:
    """Return the table of what budgets buy."""
    rows = []
    for n, flops in enumerate(plan.budgets):
        cells = [_bought(planned.bought[n]) for planned in plan.arms.values()]
        rows.append(TableRow(numbers.flops(flops), cells))
    return WideTable("What a budget buys: steps, tokens (epochs)", "FLOPs", list(plan.arms), rows)


def _bought(bought: Bought | None) -> str:
    """Return as text what a budget buys an arm."""
    if bought is None:
        return "less than a step"
    text = f"{numbers.count(bought.steps)}, {numbers.tokens(bought.tokens)}"
    # Text without an end has no epochs.
    if bought.epochs is None:
        return text
    return f"{text} ({bought.epochs:.3g})"


def _forecasts(fitted: FittedPlan) -> WideTable:
    """Return the table of what each arm is forecast to reach."""
    endpoint = fitted.pilot.endpoint
    caption = (
        f"Forecast {endpoint.label} ({endpoint.unit}, {endpoint.better} is better); extrapolated "
        f"beyond {numbers.flops(fitted.largest_budget)} FLOPs"
    )
    # A dash where a budget buys an arm no step.
    rows = []
    for flops in fitted.plan.budgets:
        cells = []
        for law in fitted.fits.values():
            text = "–"
            if point := law.at(flops):
                text = (
                    f"{numbers.score(point.mean)} {numbers.metric_interval(point.low, point.high)}"
                )
            cells.append(text)
        best = leader(ranking(fitted, flops))
        rows.append(TableRow(numbers.flops(flops), [*cells, best]))
    return WideTable(caption, "FLOPs", [*fitted.fits, "BEATS all others"], rows)
