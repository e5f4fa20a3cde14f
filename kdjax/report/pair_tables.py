"""What the report shows of minimal pairs: each set under each way to score, and its phenomena."""

from __future__ import annotations

from dataclasses import dataclass

from kdjax.report import numbers, summary
from kdjax.report.summary import Spread
from kdjax.results.runs import PairScores, ReferenceModel, RunResult, pair_scores
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint

PairRow = tuple[str, bool, list[PairScores]]
"""An arm, or a model for reference; which of the two; and its scores, seed by seed."""


@dataclass(frozen=True)
class PairTable:
    """A set of minimal pairs.

    Attributes:
        endpoint: endpoint of the set.
        pairs: number of pairs.
        ways: ways to score, the endpoint's first.
        models: models in order: name, and whether it is for reference.
        accuracy: for each model, a cell for each way to score.
        ties: for each model, the mean number of ties, way by way.
        flops: for each model, FLOPs of scoring the set.
        phenomena: phenomenon -> accuracy of each model by the first way to score.
    """

    endpoint: Endpoint
    pairs: int
    ways: tuple[str, ...]
    models: list[tuple[str, bool]]
    accuracy: list[list[Spread | None]]
    ties: list[str]
    flops: list[int]
    phenomena: dict[str, list[Spread | None]]


def tables(results: Results) -> list[PairTable]:
    """Return a table for each set of minimal pairs that some model was measured on.

    Args:
        results: the content of results.json.
    """
    pair_tables = []
    for endpoint in results.endpoints:
        if endpoint.kind != "minimal_pairs":
            continue
        rows = _rows(results, endpoint)
        if rows:
            pair_tables.append(_table(endpoint, rows))
    return pair_tables


def _rows(results: Results, endpoint: Endpoint) -> list[PairRow]:
    """Return the arms, then the models for reference, that were measured on a set."""
    # The key tells an arm from a reference of the same name.
    named: dict[tuple[str, bool], list[PairScores]] = {}
    measured: list[tuple[str, bool, RunResult | ReferenceModel]] = []
    measured += [(run.arm, False, run) for run in results.runs]
    measured += [(row.name, True, row) for row in results.references]
    for name, reference, row in measured:
        if scores := pair_scores(row, endpoint.name):
            named.setdefault((name, reference), []).append(scores)
    return [(name, reference, scores) for (name, reference), scores in named.items()]


def _table(endpoint: Endpoint, rows: list[PairRow]) -> PairTable:
    """Make the table of a set."""
    first = rows[0][2][0]
    ways = tuple(first.scoring)
    accuracy = []
    ties = []
    for _, _, scores in rows:
        cells = []
        means = []
        for way in ways:
            of_way = [seed.scoring[way] for seed in scores]
            cells.append(summary.spread(scored.accuracy for scored in of_way))
            mean = sum(scored.ties for scored in of_way) / len(of_way)
            means.append(numbers.count(mean))
        accuracy.append(cells)
        ties.append(", ".join(means))
    phenomena = {}
    for name in first.scoring[ways[0]].phenomena:
        cells = []
        for _, _, scores in rows:
            seed_scores = [seed.scoring[ways[0]].phenomena[name] for seed in scores]
            cells.append(summary.spread(score.accuracy for score in seed_scores))
        phenomena[name] = cells
    return PairTable(
        endpoint=endpoint,
        pairs=first.pairs,
        ways=ways,
        models=[(name, reference) for name, reference, _ in rows],
        accuracy=accuracy,
        ties=ties,
        flops=[scores[0].flops for _, _, scores in rows],
        phenomena=phenomena,
    )
