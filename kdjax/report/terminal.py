"""A study in the terminal: tables of scores by kind of endpoint, then what they say."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from kdjax.report import numbers, primary_endpoint, score_tables, sentences, task_tables, words_seen
from kdjax.report.averages import mean, runs
from kdjax.report.phrases import say
from kdjax.report.score_tables import ScoreCell, ScoreTable
from kdjax.report.wide_table import TableRow, WideTable
from kdjax.results.study import Results


def summary(results: Results) -> Group:
    """Make the tables of scores and of what runs used, and under them the verdicts in sentences.

    Args:
        results: the content of results.json.
    """
    baseline = results.baseline_arm
    tables = [*score_tables.tables(results), *task_tables.tables(results)]
    title = say("scores_title", budget=numbers.budget(results.budget))
    explained = score_tables.explanations(results, tables)
    scores = [_scores(table, baseline) for table in tables]
    # Text, not markup: a name may hold square brackets.
    headline = Text(sentences.headline(results), style="bold")
    answers = [Text(answer) for answer in sentences.answers(results).values()]
    tested = [Text(sentence) for sentence in primary_endpoint.sentences(results)]
    contrasts = [Text(sentence) for sentence in primary_endpoint.contrasts(results)]
    return Group(
        Text(title, style="bold"),
        *scores,
        Text(explained, style="dim"),
        _used(results),
        *tested,
        *contrasts,
        headline,
        *answers,
    )


def _scores(table: ScoreTable, baseline: str) -> WideTable:
    """Make a table of scores; notes stand below them, so that numbers are below one another."""
    caption = f"{table.caption} ({table.unit})" if table.unit else table.caption
    heads = ["\n".join(filter(None, (column.title, column.unit))) for column in table.columns]
    rows = []
    for arm, cells in table.arms.items():
        name = f"{arm}\nbaseline" if arm == baseline else arm
        rows.append(TableRow(name, _texts(cells)))
    for others in (table.references, table.levels):
        rows += [TableRow(name, _texts(cells), reference=True) for name, cells in others.items()]
    return WideTable(caption, "arm", heads, rows)


def _texts(cells: Sequence[ScoreCell]) -> list[str]:
    """Return cells as text."""
    return ["\n".join((cell.text, *cell.notes)) for cell in cells]


def _used(results: Results) -> WideTable:
    """Make the table of what the mean run of each arm read."""
    heads = ["steps", "epochs"]
    # Results of earlier versions have no count of words.
    with_words = words_seen.has_word_counts(results)
    with_teacher = any(arm.needs_teacher for arm in results.arms.values())
    if with_words:
        heads += ["words", "teacher's words"] if with_teacher else ["words"]
    rows = []
    for arm in score_tables.ordered_arms(results):
        arm_runs = runs(results, arm)
        cells = [
            numbers.count(mean(run.steps for run in arm_runs)),
            f"{mean(run.epochs for run in arm_runs):.2f}",
        ]
        if with_words:
            cells += words_seen.terminal_words(results, arm)
        rows.append(TableRow(arm, cells[: len(heads)]))
    return WideTable(say("used_title"), "arm", heads, rows)
