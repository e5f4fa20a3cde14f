"""A tuning in the terminal: what was best for each arm, out of what, and what it took."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdjax.report import numbers, reference_losses
from kdjax.results.schema import ArmTrials, TuningResults
from kdjax.study import tuned


def summary(found: TuningResults) -> Group:
    """A row for each arm, and under the table what a reader should know.

    Args:
        found: the content of tuning.json.
    """
    better = "↑" if found.better == "higher" else "↓"
    title = f"{found.trials} trials an arm, {numbers.budget(found.budget)} a run"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("arm", no_wrap=True)
    table.add_column("trials", justify="right")
    for name in sorted(found.space):
        table.add_column(Text(f"best {name}"), justify="right", overflow="fold")
    table.add_column(Text(f"{found.endpoint} {better}"), justify="right", overflow="fold")
    for head in ("all trials", "FLOPs"):
        table.add_column(head, justify="right")
    for arm, own in found.arms.items():
        values = [trial.value for trial in own.trials if trial.value is not None]
        count = f"{len(own.trials)}" + (f" ({own.diverged} diverged)" if own.diverged else "")
        best = [_best(own, name) for name in sorted(found.space)]
        spread = f"{numbers.score(min(values))} to {numbers.score(max(values))}"
        table.add_row(
            Text(arm),
            count,
            *best,
            numbers.score(own.best.value),
            spread,
            numbers.flops(own.charged),
        )
    # A loss stands beside what counts of the text alone reach.
    unit = "nats" if found.better == "lower" else ""
    levels = reference_losses.of_endpoint(found.reference_losses, found.endpoint, unit)
    empty = [""] * (1 + len(found.space))
    table.add_section()
    for label, loss in levels.items():
        table.add_row(Text(label), *empty, numbers.score(loss), "", "", style="dim")
    # Text, not markup: a name may hold square brackets.
    return Group(table, *map(Text, tuned.notes(found)))


def _best(own: ArmTrials, name: str) -> Text:
    """The best value of a setting, marked where it lies at an end of its range."""
    mark = {"low": " (lowest)", "high": " (highest)"}.get(own.edges.get(name, ""), "")
    return Text(f"{tuned.format_value(own.best.settings[name])}{mark}")
