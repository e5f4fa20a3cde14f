"""Scores of a study as tables: one for each kind of endpoint, a row for each model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from kdjax.config import Protocol
from kdjax.config.suites import result_names
from kdjax.report import mlm_probe, ngram_losses, numbers, summary
from kdjax.report.averages import text_or_dash
from kdjax.report.mlm_probe import ShuffledRow
from kdjax.report.phrases import say
from kdjax.report.summary import Spread
from kdjax.results.failed import finetuned_tasks
from kdjax.results.runs import ReferenceModel, RunResult, diverged_arms
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint

LOSSES = ("mlm", "mlm_probe")
"""Kinds of endpoint that share a table: held-out losses in nats."""


@dataclass(frozen=True)
class ScoreColumn:
    """The head of a column of scores.

    Attributes:
        endpoint: name of the endpoint that the column is of, or follows from.
        title: task, text, set of pairs, or the endpoint's name.
        unit: unit of the scores and which are better, where the table has several; else empty.
        rows: number of held-out rows; None where the column follows from another.
        baseline: the most that one answer for all rows scores, or guessing.
    """

    endpoint: str
    title: str
    unit: str
    rows: int | None
    baseline: str


@dataclass(frozen=True)
class ScoreCell:
    """A model's score.

    Attributes:
        text: mean and standard deviation over seeds, or why there is none.
        verdict: BEATS, LOSES, TIES or INCONCLUSIVE, against the baseline arm; else empty.
        failed: how many of the fine-tunings behind the score failed; empty where none did.
    """

    text: str
    verdict: str = ""
    failed: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes below the score, line by line."""
        return tuple(filter(None, (self.verdict, self.failed)))


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one kind, with a row for each model.

    Attributes:
        caption: what is measured, and how.
        unit: unit of all scores and which are better; empty where columns differ.
        columns: the endpoints.
        arms: arm -> a cell for each column, the baseline arm first.
        references: model for reference -> a cell for each column.
        levels: name -> a cell for each column: what counts of the text or a constant reach.
        remarks: what was tried, chosen and counted, in sentences.
    """

    caption: str
    unit: str
    columns: tuple[ScoreColumn, ...]
    arms: Mapping[str, Sequence[ScoreCell]]
    references: Mapping[str, Sequence[ScoreCell]]
    levels: Mapping[str, Sequence[ScoreCell]]
    remarks: list[str] = field(default_factory=list)

    def cells(self, number: int | None = None) -> list[ScoreCell]:
        """Return the cells of all columns, or of the column with this number."""
        cells: list[ScoreCell] = []
        for rows in (self.arms, self.references, self.levels):
            for row in rows.values():
                cells += row if number is None else [row[number]]
        return cells


def tables(results: Results) -> list[ScoreTable]:
    """Return the tables of losses, minimal pairs and one's own tasks; suites have their own.

    Args:
        results: the content of results.json.
    """
    suite = results.config["evaluation"].get("suite", "")
    in_suite = {suite, *result_names(suite, ())} if suite else set()
    # Losses of a model's own head and of the probe's are of one unit and one text.
    grouped: dict[str, list[MeasuredEndpoint]] = {}
    for endpoint in results.endpoints:
        if summary.task_of(endpoint) in in_suite and endpoint.kind in get_args(Protocol):
            continue
        kind = LOSSES[0] if endpoint.kind in LOSSES else endpoint.kind
        grouped.setdefault(kind, []).append(endpoint)
    score_tables = []
    for kind, endpoints in grouped.items():
        titles = [_title(endpoint) for endpoint in endpoints]
        table = make_table(results, _caption(kind, endpoints), endpoints, titles)
        if kind == LOSSES[0]:
            table = _with_controls(results, table, endpoints)
        score_tables.append(table)
    return score_tables


def make_table(
    results: Results,
    caption: str,
    endpoints: Sequence[MeasuredEndpoint],
    titles: Sequence[str],
    remarks: Iterable[str] = (),
) -> ScoreTable:
    """Make the table of some endpoints.

    Args:
        results: the content of results.json.
        caption: what the table shows.
        endpoints: the endpoints, in the order of the columns.
        titles: head of each column.
        remarks: sentences below the table.
    """
    # A unit that all columns have is said once.
    units = [f"{endpoint.unit}, {endpoint.better} is better" for endpoint in endpoints]
    shared = units[0] if len(set(units)) == 1 else ""
    columns = []
    for endpoint, title, unit in zip(endpoints, titles, units, strict=True):
        baseline = "–" if endpoint.baseline is None else numbers.score(endpoint.baseline)
        shown_unit = "" if shared else unit
        columns.append(ScoreColumn(endpoint.name, title, shown_unit, endpoint.rows, baseline))

    arms = {}
    for arm in ordered_arms(results):
        arms[arm] = [cell(results, arm, endpoint) for endpoint in endpoints]
    # A model that has none of these scores has no row.
    references = {}
    for name, spreads in summary.reference_spreads(results).items():
        if any(endpoint.name in spreads for endpoint in endpoints):
            references[name] = _reference_cells(results, name, spreads, endpoints)
    levels = _levels(results, endpoints, columns)
    return ScoreTable(caption, shared, tuple(columns), arms, references, levels, list(remarks))


def explanations(results: Results, shown: Iterable[ScoreTable]) -> str:
    """Return the sentences that a reader of some tables needs.

    Args:
        results: the content of results.json.
        shown: the tables.
    """
    texts = [say("scores_explained")]
    # What only some studies have is explained where it is.
    shown = list(shown)
    cells = list(itertools.chain.from_iterable(table.cells() for table in shown))
    if any(cell.verdict for cell in cells):
        texts.append(say("scores_verdict", baseline=results.baseline_arm))
    if any(cell.failed for cell in cells):
        texts.append(say("scores_failed"))
    columns = itertools.chain.from_iterable(table.columns for table in shown)
    if any(column.title.endswith(say("scores_gap", name="")) for column in columns):
        texts.append(say("scores_gap_explained"))
    return " ".join(texts)


def ordered_arms(results: Results) -> list[str]:
    """Return the arms, the baseline arm first."""
    others = [arm for arm in results.arms if arm != results.baseline_arm]
    return [results.baseline_arm, *others]


def cell(results: Results, arm: str, endpoint: MeasuredEndpoint) -> ScoreCell:
    """Return an arm's score on an endpoint, its verdict, and how many fine-tunings failed.

    Args:
        results: the content of results.json.
        arm: name of the arm.
        endpoint: the endpoint.
    """
    diverged = arm in diverged_arms(results.runs)
    if diverged or arm not in endpoint.arms:
        return ScoreCell(numbers.no_score(endpoint, diverged=diverged))
    scores = summary.values_by_seed(results, arm, endpoint).values()
    difference = summary.difference(results, endpoint, arm, results.baseline_arm)
    verdict = "" if difference is None else difference.outcome
    rows = [run for run in results.runs if run.arm == arm]
    failed = failures_text(rows, endpoint.name)
    return ScoreCell(summary.text(summary.spread(scores)), verdict, failed)


def failures(rows: Sequence[RunResult | ReferenceModel], endpoint: str) -> tuple[int, int]:
    """Count the fine-tunings that a score is of: those that failed, and all.

    Those of a suite's mean are those of the tasks that it is of.

    Args:
        rows: runs, or models for reference.
        endpoint: name of the endpoint.
    """
    failed = 0
    trials = 0
    for row in rows:
        for finetuned in finetuned_tasks(endpoint, row):
            failed += finetuned.failed
            trials += len(finetuned.chosen_trials)
    return failed, trials


def failures_text(rows: Sequence[RunResult | ReferenceModel], endpoint: str) -> str:
    """Return the number of a score's failed fine-tunings as text; empty where none failed."""
    failed, trials = failures(rows, endpoint)
    return f"{failed:,} of {trials:,} failed" if failed else ""


def _reference_cells(
    results: Results,
    name: str,
    spreads: Mapping[str, Spread],
    endpoints: Sequence[MeasuredEndpoint],
) -> list[ScoreCell]:
    """Return the scores of a model for reference, and how many of its fine-tunings failed."""
    rows = [row for row in results.references if row.name == name]
    cells = []
    for endpoint in endpoints:
        text = summary.text(spreads.get(endpoint.name))
        cells.append(ScoreCell(text, failed=failures_text(rows, endpoint.name)))
    return cells


def _levels(
    results: Results, endpoints: Sequence[MeasuredEndpoint], columns: Sequence[ScoreColumn]
) -> dict[str, list[ScoreCell]]:
    """Return the rows of what counts of the text reach, and of a constant's score."""
    levels = {}
    for label, values in ngram_losses.rows(results.corpus.ngram_losses, endpoints).items():
        levels[label] = [ScoreCell(text_or_dash(numbers.score, value)) for value in values]
    if any(endpoint.baseline is not None for endpoint in endpoints):
        guess = "chance" if endpoints[0].kind == "minimal_pairs" else "best constant"
        levels[guess] = [ScoreCell(column.baseline) for column in columns]
    return levels


def _caption(kind: str, endpoints: Sequence[MeasuredEndpoint]) -> str:
    """Return the caption of a kind of endpoint's table."""
    if kind == LOSSES[0]:
        return say("scores_losses")
    if kind == "minimal_pairs":
        return say("scores_pairs")
    # A protocol in words stands behind each task's name.
    protocol = endpoints[0].label.removeprefix(f"{summary.task_of(endpoints[0])}, ")
    return say("scores_tasks", protocol=protocol)


def _title(endpoint: MeasuredEndpoint) -> str:
    """Return the head of an endpoint's column: of a loss its name, else its task or set."""
    if endpoint.kind in LOSSES:
        return endpoint.name
    return summary.task_of(endpoint)


def _with_controls(
    results: Results, table: ScoreTable, endpoints: Sequence[MeasuredEndpoint]
) -> ScoreTable:
    """Return the table of losses with two columns more: gap closed, and on shuffled words.

    Both are of the loss that most arms have, on the study's own text.
    """
    own_text = [endpoint for endpoint in endpoints if "." not in endpoint.name]
    if not own_text:
        return table
    yardstick = max(own_text, key=lambda endpoint: len(endpoint.arms))
    place = list(endpoints).index(yardstick) + 1
    columns = list(table.columns)
    rows: list[tuple[str, list[ScoreCell]]] = []
    for group in (table.arms, table.references, table.levels):
        rows += [(name, list(cells)) for name, cells in group.items()]

    shuffled = dict(mlm_probe.shuffled(results)).get(yardstick, [])
    if shuffled:
        title = say("scores_shuffled", name=yardstick.name)
        columns.insert(place, ScoreColumn(yardstick.name, title, "", None, "–"))
        _insert(rows, place, _shuffled_cells(shuffled))
    losses = results.corpus.ngram_losses
    # Where neighbours tell nothing there is no gap.
    if losses is not None and losses.both_neighbors < losses.unigram:
        title = say("scores_gap", name=yardstick.name)
        columns.insert(place, ScoreColumn(yardstick.name, title, "", None, "–"))
        _insert(rows, place, _gap_cells(results, yardstick))
    arms = len(table.arms)
    references = arms + len(table.references)
    return ScoreTable(
        table.caption,
        table.unit,
        tuple(columns),
        dict(rows[:arms]),
        dict(rows[arms:references]),
        dict(rows[references:]),
        table.remarks,
    )


def _insert(
    rows: list[tuple[str, list[ScoreCell]]], place: int, cells: Mapping[str, ScoreCell]
) -> None:
    """Insert a column into rows; a dash where a row has no cell of it."""
    for name, row in rows:
        row.insert(place, cells.get(name, ScoreCell("–")))


def _shuffled_cells(rows: Sequence[ShuffledRow]) -> dict[str, ScoreCell]:
    """Return each model's loss where the visible words are shuffled."""
    return {row.name: ScoreCell(summary.text(row.shuffled)) for row in rows}


def _gap_cells(results: Results, endpoint: MeasuredEndpoint) -> dict[str, ScoreCell]:
    """Return each model's share of the way from the unigram loss to that of both neighbours."""
    losses = results.corpus.ngram_losses
    assert losses is not None  # the caller has checked
    means: dict[str, float] = {}
    for arm in results.arms:
        spread = summary.spread(summary.values_by_seed(results, arm, endpoint).values())
        if spread is not None:
            means[arm] = spread.mean
    for name, spreads in summary.reference_spreads(results).items():
        if endpoint.name in spreads:
            means[name] = spreads[endpoint.name].mean
    for label, loss in ngram_losses.endpoint_losses(losses, endpoint.name, endpoint.unit).items():
        means[label] = loss
    whole = losses.unigram - losses.both_neighbors
    cells = {}
    for name, mean in means.items():
        # A rounded whole number: 0 has no sign.
        share = round(100 * (losses.unigram - mean) / whole)
        cells[name] = ScoreCell(f"{share}%".replace("-", numbers.MINUS))
    return cells
