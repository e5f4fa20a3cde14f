"""A study in the terminal: tables of scores by kind of endpoint, then what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group
from rich.table import Table
from rich.text import Text

from kdjax.report import numbers, primary_endpoint, score_tables, sentences, task_tables, words
from kdjax.report.averages import mean, runs
from kdjax.report.phrases import say
from kdjax.report.score_tables import ScoreCell, ScoreTable
from kdjax.results.study import Results

TITLE_WIDTH = 16
"""Columns that a head takes at most; a longer one goes on in the next line."""
GAP = 3
"""Columns of the terminal between two columns of a table."""
EDGES = 2
"""Columns of the terminal beside a table."""


def summary(results: Results) -> Group:
    """Make the tables of scores and of what runs used, and under them the verdicts in sentences.

    Args:
        results: the content of results.json.
    """
    baseline = results.baseline_arm
    tables = [*score_tables.tables(results), *task_tables.tables(results)]
    title = say("scores_title", budget=numbers.budget(results.budget))
    explained = score_tables.explained(results, tables)
    scores = [_Scores(table, baseline) for table in tables]
    # Text, not markup: a name may hold square brackets.
    headline = Text(sentences.headline(results), style="bold")
    answers = [Text(answer) for answer in sentences.answers(results).values()]
    tested = [Text(sentence) for sentence in primary_endpoint.sentences(results)]
    return Group(
        Text(title, style="bold"),
        *scores,
        Text(explained, style="dim"),
        Text("\n" + say("used_title"), style="bold"),
        _used(results),
        *tested,
        headline,
        *answers,
    )


@dataclass(frozen=True)
class _Scores:
    """A table of scores, which is drawn as several where its columns do not fit beside one another.

    Attributes:
        table: the scores.
        baseline: name of the baseline arm.
    """

    table: ScoreTable
    baseline: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Draw as many tables as the terminal's width asks for, each with the models' names."""
        table = self.table
        caption = f"{table.caption} ({table.unit})" if table.unit else table.caption
        yield Text(f"\n{caption}", style="bold")
        names = [*table.arms, *table.references, *table.levels]
        room = options.max_width - EDGES - max(len(name) for name in ("baseline", *names))
        # Columns are taken as long as they fit, at least one a table.
        parts: list[list[int]] = []
        width = 0
        for number in range(len(table.columns)):
            needed = self._width(number) + GAP
            if not parts or width + needed > room:
                parts.append([])
                width = 0
            parts[-1].append(number)
            width += needed
        for part in parts:
            yield self._draw(part)

    def _width(self, number: int) -> int:
        """Return the columns of the terminal that a column of the table takes."""
        column = self.table.columns[number]
        texts = [column.title[:TITLE_WIDTH], column.unit[:TITLE_WIDTH]]
        for cell in self.table.cells(number):
            texts += [cell.text, *cell.notes]
        return max(map(len, texts))

    def _draw(self, part: Sequence[int]) -> Table:
        """Draw some columns of the table."""
        shown = self.table
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
        drawn.add_column("arm", no_wrap=True)
        for number in part:
            column = shown.columns[number]
            head = "\n".join(filter(None, (column.title, column.unit)))
            drawn.add_column(
                Text(head), justify="right", overflow="fold", width=self._width(number)
            )
        # The arms, the baseline arm first; below a line what is for reference.
        for arm, cells in shown.arms.items():
            name = f"{arm}\nbaseline" if arm == self.baseline else arm
            drawn.add_row(Text(name), *_drawn(cells, part))
        drawn.add_section()
        for rows in (shown.references, shown.levels):
            for name, cells in rows.items():
                drawn.add_row(Text(name), *_drawn(cells, part), style="dim")
        return drawn


def _drawn(cells: Sequence[ScoreCell], part: Sequence[int]) -> list[Text]:
    """Return cells as text; notes below the number, so that numbers stand below one another."""
    return [Text("\n".join((cells[number].text, *cells[number].notes))) for number in part]


def _used(results: Results) -> Table:
    """Make the table of what the mean run of each arm read."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    heads = ["steps", "epochs"]
    # Results of earlier versions have no count of words.
    with_words = words.counted(results)
    with_teacher = any(arm.needs_teacher for arm in results.arms.values())
    if with_words:
        heads += ["words", "teacher's words"] if with_teacher else ["words"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for arm in score_tables.ordered_arms(results):
        arm_runs = runs(results, arm)
        row = [
            numbers.count(mean(run.steps for run in arm_runs)),
            f"{mean(run.epochs for run in arm_runs):.2f}",
        ]
        if with_words:
            row += words.in_terminal(results, arm)[: len(heads) - len(row)]
        table.add_row(Text(arm), *row)
    return table
