"""A plan in the terminal: who is forecast ahead, what each arm would reach, and how far to trust
that."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdjax.plan.standing import Plan, reach, standing
from kdjax.plan.verdict import answers, headline, leader, sources
from kdjax.report import numbers


def summary(found: Plan) -> Group:
    """The answer, a table of the budgets, and what each of the three sources says.

    Args:
        found: the content of plan.json.
    """
    # Text, not markup: a name may hold square brackets.
    parts: list[Table | Text] = [Text(headline(found), style="bold"), _bought(found)]
    if found["fits"] is not None:
        parts += [_forecasts(found), *map(Text, answers(found).values())]
    for source, sentences in sources(found).items():
        parts.append(Text.assemble((f"{source}: ", "bold"), " ".join(sentences)))
    return Group(*parts)


def _bought(found: Plan) -> Table:
    """What budgets buy."""
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title=Text("What a budget buys: steps, tokens (epochs)")
    )
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for arm in found["arms"]:
        table.add_column(Text(arm), justify="right", overflow="fold")
    for n, flops in enumerate(found["budgets"]):
        cells = []
        for arm in found["arms"].values():
            got = arm["bought"][n]
            epochs = "" if got is None or got["epochs"] is None else f" ({got['epochs']:.3g})"
            cells.append(
                "less than a step"
                if got is None
                else f"{numbers.count(got['steps'])}, {numbers.tokens(got['tokens'])}{epochs}"
            )
        table.add_row(numbers.flops(flops), *cells)
    return table


def _forecasts(found: Plan) -> Table:
    """What each arm is forecast to reach."""
    endpoint = found["pilot"]["endpoint"]
    better = "↑" if endpoint["better"] == "higher" else "↓"
    title = (
        f"Forecast {endpoint['label']} ({endpoint['unit']} {better}); "
        f"extrapolated beyond {numbers.flops(reach(found))} FLOPs"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("FLOPs", justify="right", no_wrap=True)
    for arm in found["fits"]:
        table.add_column(Text(arm), justify="right", overflow="fold")
    table.add_column("ahead", overflow="fold")
    for flops in found["budgets"]:
        cells = []
        for fit in found["fits"].values():
            told = next((one for one in fit["predictions"] if one["flops"] == flops), None)
            cells.append(
                "–"
                if told is None
                else f"{numbers.score(told['mean'])} {numbers.between(told['low'], told['high'])}"
            )
        table.add_row(numbers.flops(flops), *cells, Text(leader(standing(found, flops))))
    return table
