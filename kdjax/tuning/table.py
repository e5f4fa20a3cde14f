"""A tuning in the terminal: each arm's best settings and the spread of its trials; notes say what
they took."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from kdjax.report import ngram_losses, numbers
from kdjax.report.wide_table import NOTHING, TableRow, WideTable
from kdjax.results.tuning import ArmTrials, TuningResults
from kdjax.study import tuned


def summary(tuning: TuningResults) -> Group:
    """Return a table with a row for each arm, and under it notes on the tuning.

    Args:
        tuning: the content of tuning.json.
    """
    better = numbers.ARROWS[tuning.better]
    caption = f"{tuning.trials} trials an arm, {numbers.budget(tuning.budget)} a run"
    # A column for each setting, by name as in the search.
    settings = sorted(tuning.space)
    best_settings = ["best\n" + name.replace(".", ".\n") for name in settings]
    heads = ["trials", *best_settings, f"{tuning.endpoint} {better}", "all trials"]
    rows = [_arm_row(name, arm, settings) for name, arm in tuning.arms.items()]

    # A loss stands beside what counts of the text alone reach.
    unit = "nats" if tuning.better == "lower" else ""
    levels = ngram_losses.endpoint_losses(tuning.ngram_losses, tuning.endpoint, unit)
    before = [NOTHING] * (1 + len(settings))
    for label, loss in levels.items():
        rows.append(TableRow(label, [*before, numbers.score(loss), NOTHING], reference=True))
    table = WideTable(caption, "arm", heads, rows)
    # Text, not markup: a name may hold square brackets.
    return Group(table, *map(Text, tuned.notes(tuning)))


def _arm_row(name: str, arm: ArmTrials, settings: Sequence[str]) -> TableRow:
    """Return an arm's row: its trials, its best settings, and how far its trials are apart."""
    # The spread of all trials shows how much tuning matters; diverged ones have no value.
    values = [trial.value for trial in arm.trials if trial.value is not None]
    count = f"{len(arm.trials)}"
    if arm.diverged:
        count += f" ({arm.diverged} diverged)"
    best = [_best(arm, setting) for setting in settings]
    spread = f"{numbers.score(min(values))} to {numbers.score(max(values))}"
    value = numbers.score(arm.best.value)
    return TableRow(name, [count, *best, value, spread])


def _best(arm: ArmTrials, setting: str) -> str:
    """Return the best value of a setting, marked where it lies at an end of its range."""
    marks = {"low": " (lowest)", "high": " (highest)"}
    value = tuned.format_value(arm.best.settings[setting])
    return f"{value}{marks.get(arm.edges.get(setting, ''), '')}"
