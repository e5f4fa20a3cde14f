"""A tuning in the terminal: each arm's best settings, the spread of its trials, their cost."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdjax.report import ngram_losses, numbers
from kdjax.results.tuning import ArmTrials, TuningResults
from kdjax.study import tuned


def summary(tuning: TuningResults) -> Group:
    """Return a table with a row for each arm, and under it notes on the tuning.

    Args:
        tuning: the content of tuning.json.
    """
    better = numbers.ARROWS[tuning.better]
    title = f"{tuning.trials} trials an arm, {numbers.budget(tuning.budget)} a run"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("arm", no_wrap=True)
    table.add_column("trials", justify="right")
    # A column for each setting, by name as in the search.
    for name in sorted(tuning.space):
        table.add_column(Text(f"best {name}"), justify="right", overflow="fold")
    table.add_column(Text(f"{tuning.endpoint} {better}"), justify="right", overflow="fold")
    for head in ("all trials", "FLOPs"):
        table.add_column(head, justify="right")
    for name, arm in tuning.arms.items():
        # The spread of all trials shows how much tuning matters; diverged ones have no value.
        values = [trial.value for trial in arm.trials if trial.value is not None]
        count = f"{len(arm.trials)}"
        if arm.diverged:
            count += f" ({arm.diverged} diverged)"
        best = [_best(arm, setting) for setting in sorted(tuning.space)]
        spread = f"{numbers.score(min(values))} to {numbers.score(max(values))}"
        value = numbers.score(arm.best.value)
        table.add_row(Text(name), count, *best, value, spread, numbers.flops(arm.charged))

    # A loss stands beside what counts of the text alone reach.
    unit = "nats" if tuning.better == "lower" else ""
    levels = ngram_losses.of_endpoint(tuning.ngram_losses, tuning.endpoint, unit)
    empty = [""] * (1 + len(tuning.space))
    table.add_section()
    for label, loss in levels.items():
        table.add_row(Text(label), *empty, numbers.score(loss), "", "", style="dim")
    # Text, not markup: a name may hold square brackets.
    return Group(table, *map(Text, tuned.notes(tuning)))


def _best(arm: ArmTrials, setting: str) -> Text:
    """Return the best value of a setting, marked where it lies at an end of its range."""
    marks = {"low": " (lowest)", "high": " (highest)"}
    value = tuned.format_value(arm.best.settings[setting])
    return Text(f"{value}{marks.get(arm.edges.get(setting, ''), '')}")
