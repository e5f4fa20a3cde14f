"""The verdicts of a sweep: every pair of arms at every budget, and how gaps change over settings.

A sweep looks at many studies. Its chance to name a false winner anywhere is that of one study, as
all of its tests are adjusted together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdjax.config import Config, plain, to_dict
from kdjax.evaluation.crossing import crossings
from kdjax.evaluation.statistics import Family, PairedOutcome, judge_tests
from kdjax.report.phrases import listed_settings
from kdjax.results.gaps import GapChange
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, MeasuredEndpoint
from kdjax.study.judgement.gaps import Gap, gaps_between
from kdjax.study.judgement.verdicts import contrast_test
from kdjax.sweep.cells import BUDGETS, Cell, swept_settings
from kdjax.sweep.schema import ArmPair, PairPoint
from kdjax.sweep.verdict import budgets_text


@dataclass(frozen=True)
class _Pair:
    """Two arms on an endpoint, in the studies of a group, small budgets first."""

    group: int
    endpoint: Endpoint
    a: str
    b: str
    studies: Sequence[Results]


@dataclass(frozen=True)
class JudgedSweep:
    """The verdicts of a sweep.

    Attributes:
        pairs: for each group of studies its comparisons, in the order of endpoints.
        gaps: for each swept setting, how the gaps to the baseline arm differ between its last value
            and its first.
    """

    pairs: list[tuple[ArmPair, ...]]
    gaps: tuple[GapChange, ...]


@dataclass(frozen=True)
class _SweptGap:
    """A gap between two studies that differ in one swept setting."""

    gap: Gap
    last: str
    first: str
    others: str


def judge_sweep(
    config: Config,
    cells: Sequence[Cell],
    results: Sequence[Results],
    groups: Sequence[Sequence[Results]],
    endpoints: Sequence[Endpoint],
) -> JudgedSweep:
    """Compare every pair of arms on every endpoint at every budget of every group.

    Confirmatory are the pairs with the baseline arm on the primary endpoint, at every budget; all
    other pairs, and how gaps change over a setting, are secondary.

    Args:
        config: recipe of the sweep.
        cells: studies of the sweep, small budgets first.
        results: results of each study.
        groups: groups of studies that differ in their budget only.
        endpoints: endpoints of the studies.
    """
    evaluation = config.evaluation
    baseline = results[0].baseline_arm
    pairs = []
    for number, studies in enumerate(groups):
        for endpoint in endpoints:
            for a, b in itertools.combinations(endpoint.arms, 2):
                pairs.append(_Pair(number, endpoint, a, b, studies))

    tests = []
    for pair in pairs:
        is_planned = pair.endpoint.name == evaluation.primary_endpoint
        is_confirmatory = is_planned and baseline in (pair.a, pair.b)
        family: Family = "confirmatory" if is_confirmatory else "secondary"
        for study in pair.studies:
            endpoint = _measured(study, pair.endpoint)
            weights = {pair.a: 1.0, pair.b: -1.0}
            tests.append(contrast_test(evaluation, endpoint, weights, family, study.runs))
    swept_gaps = _swept_gaps(config, cells, results, baseline)
    tests += [swept.gap.test for swept in swept_gaps]
    outcomes = iter(judge_tests(tests, evaluation.confidence))

    # Outcomes come in the order of the tests: pairs, budget by budget, then gaps.
    by_group: list[list[ArmPair]] = [[] for _ in groups]
    for pair in pairs:
        points = [_point(study.budget.amount, next(outcomes)) for study in pair.studies]
        by_group[pair.group].append(_joined(pair, points))
    gaps = []
    for swept in swept_gaps:
        change = swept.gap.change(swept.last, swept.first, next(outcomes))
        gaps.append(replace(change, settings=swept.others))
    return JudgedSweep([tuple(arm_pairs) for arm_pairs in by_group], tuple(gaps))


def _swept_gaps(
    config: Config, cells: Sequence[Cell], results: Sequence[Results], baseline: str
) -> list[_SweptGap]:
    """Return the gaps to the baseline arm at the last value of each setting and at its first."""
    values = plain(to_dict(config))
    swept_gaps = []
    for name, swept in swept_settings(config).items():
        if len(swept) < 2:
            continue
        for last_cell, last_study in zip(cells, results, strict=True):
            if last_cell.settings[name] != swept[-1]:
                continue
            # The study whose other settings are the same.
            settings = {**last_cell.settings, name: swept[0]}
            number = next(n for n, cell in enumerate(cells) if cell.settings == settings)
            others = {other: value for other, value in settings.items() if other != name}
            for gap in gaps_between(values, last_study, results[number], baseline):
                last = _shown(name, swept[-1])
                first = _shown(name, swept[0])
                shown = ", ".join(_shown(other, value) for other, value in others.items())
                swept_gaps.append(_SweptGap(gap, last, first, shown))
    return swept_gaps


def _shown(name: str, value: Any) -> str:
    """Return a swept setting's value as text: `student.layers 4`, and of a budget its amount."""
    if name in BUDGETS:
        return budgets_text([value], name.removeprefix("budget."))
    return listed_settings({name: value})


def _measured(study: Results, endpoint: Endpoint) -> MeasuredEndpoint:
    """Return a sweep's endpoint as one of its studies measured it."""
    return next(measured for measured in study.endpoints if measured.name == endpoint.name)


def _point(budget: float, outcome: PairedOutcome) -> PairPoint:
    """Return an outcome as the difference of two arms at a budget."""
    return PairPoint(
        budget,
        outcome.difference,
        outcome.low,
        outcome.high,
        outcome.n,
        outcome.verdict,
        outcome.p_value,
        outcome.p_adjusted,
        outcome.family,
    )


def _joined(pair: _Pair, points: Sequence[PairPoint]) -> ArmPair:
    """Return a pair over the budgets, and where its difference is 0."""
    # A mean without an interval crosses nothing.
    budgets: list[float] = []
    differences: list[float] = []
    lows: list[float] = []
    highs: list[float] = []
    for point in points:
        if point.difference is not None and point.low is not None and point.high is not None:
            budgets.append(point.budget)
            differences.append(point.difference)
            lows.append(point.low)
            highs.append(point.high)
    crossed = crossings(budgets, differences, lows, highs)
    return ArmPair(pair.endpoint.name, pair.a, pair.b, tuple(points), tuple(crossed))
