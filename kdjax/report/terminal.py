"""A study in the terminal: scores by arm and endpoint, then what they say."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdjax.report import (
    mlm_probe,
    ngram_losses,
    numbers,
    primary_endpoint,
    sentences,
    task_tables,
    words,
)
from kdjax.report.averages import mean, or_dash, runs
from kdjax.report.phrases import say
from kdjax.report.summary import Spread, by_seed, main_endpoints, references, spread, task_of, text
from kdjax.report.task_tables import TaskTable
from kdjax.results.runs import diverged_arms
from kdjax.results.study import Results


def summary(results: Results) -> Group:
    """Make the table of scores and steps, and under it the verdicts in sentences.

    Args:
        results: the content of results.json.
    """
    endpoints = main_endpoints(results)
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=Text(f"{numbers.budget(results.budget)} a run, mean ± sd over seeds"),
    )
    table.add_column("arm", no_wrap=True)
    for endpoint in endpoints:
        better = numbers.ARROWS[endpoint.better]
        table.add_column(
            Text(f"{endpoint.label} ({endpoint.unit} {better})"),
            justify="right",
            overflow="fold",
        )
    for name in ("steps", "epochs"):
        table.add_column(name, justify="right", no_wrap=True)
    with_words = words.counted(results)
    if with_words:
        table.add_column("words (+ teacher's)", justify="right", overflow="fold")
    diverged = diverged_arms(results.runs)
    for arm in results.arms:
        cells = []
        for endpoint in endpoints:
            if arm in endpoint.arms and arm not in diverged:
                cells.append(_cell(spread(by_seed(results, arm, endpoint).values())))
            else:
                cells.append(
                    Text(numbers.no_score(endpoint, diverged=arm in diverged), style="dim")
                )
        arm_runs = runs(results, arm)
        cells.append(Text(numbers.count(mean(run.steps for run in arm_runs))))
        cells.append(Text(f"{mean(run.epochs for run in arm_runs):.2f}"))
        if with_words:
            cells.append(Text(words.in_terminal(results, arm)))
        table.add_row(Text(arm), *cells)
    table.add_section()
    for name, metrics in references(results).items():
        row = [_cell(metrics.get(endpoint.name)) for endpoint in endpoints]
        table.add_row(Text(name), *row, style="dim")
    for label, values in ngram_losses.rows(results.corpus.ngram_losses, endpoints).items():
        # A column that is no loss has no such number.
        scores = [or_dash(numbers.score, value) for value in values]
        table.add_row(Text(label), *map(Text, scores), style="dim")
    suites = [_suite_table(suite) for suite in task_tables.tables(results)]
    # Text, not markup: a name may hold square brackets.
    headline = Text(sentences.headline(results), style="bold")
    answers = [Text(answer) for answer in sentences.answers(results).values()]
    tested = [Text(sentence) for sentence in primary_endpoint.sentences(results)]
    order = [Text(sentence) for sentence in _order(results)]
    return Group(table, *suites, *tested, headline, *answers, *order)


def _suite_table(suite: TaskTable) -> Table:
    """Make the table of a suite under one protocol: a row a result, a column a model."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(suite.caption))
    table.add_column("task", no_wrap=True)
    models = {**suite.arms, **suite.references}
    for name in models:
        table.add_column(Text(name), justify="right", overflow="fold")
    table.add_column("majority class", justify="right")
    for number, column in enumerate(suite.columns):
        cells = []
        for model in models.values():
            cell = model[number]
            # Below and not beside, so that the numbers of a column stand below one another.
            cells.append(Text("\n".join(filter(None, (cell.text, cell.note)))))
        table.add_row(Text(column.title), *cells, column.baseline)
    return table


def _order(results: Results) -> list[str]:
    """Return, for each loss on the study's own text, a line on the cost of shuffled words."""
    statements = []
    for endpoint, rows in mlm_probe.shuffled(results):
        costs = [
            f"{row.name} {numbers.signed(row.difference.mean)}" for row in rows if row.difference
        ]
        if not task_of(endpoint):
            statements.append(say("shuffled", label=endpoint.label, costs=", ".join(costs)))
    return statements


def _cell(values: Spread | None) -> Text:
    """Return a score with its spread."""
    return Text(text(values))
