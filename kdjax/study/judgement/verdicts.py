"""The verdicts of a study: every pair of arms on every endpoint, and the recipe's contrasts.

All tests are adjusted together (`kdjax.evaluation.statistics.multiple_testing`): a study of equal
arms names a winner anywhere in at most 1 - confidence of cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from kdjax.config import ContrastConfig, EvaluationConfig
from kdjax.evaluation.statistics import (
    Family,
    PairedOutcome,
    PairedTest,
    contrast_differences,
    judge_tests,
    smallest_spread,
)
from kdjax.evaluation.statistics.comparison import as_comparison
from kdjax.evaluation.statistics.contrast import claim_verdict
from kdjax.evaluation.statistics.row_error import crossed_interval
from kdjax.results.failed import unlearnt_arms
from kdjax.results.row_outcomes import row_differences
from kdjax.results.runs import RunResult, diverged_arms
from kdjax.results.verdicts import ContrastVerdict, MeasuredEndpoint, PairVerdict

Weights = Mapping[str, float]
"""Arm -> its weight in a contrast; of a pair 1 and -1."""


@dataclass(frozen=True)
class StudyVerdicts:
    """The verdicts of a study.

    Attributes:
        pairs: a verdict for every pair of arms on every endpoint, in the order of endpoints.
        contrasts: a verdict for each hypothesis and each other contrast of the recipe.
    """

    pairs: tuple[PairVerdict, ...]
    contrasts: tuple[ContrastVerdict, ...]


@dataclass(frozen=True)
class _Asked:
    """A test that is made once, whoever asks for it: a contrast on an endpoint."""

    endpoint: MeasuredEndpoint
    weights: Weights
    family: Family

    def is_of(self, endpoint: str, weights: Weights) -> bool:
        """Return whether it is of these weights, or of these weights turned round."""
        turned = {arm: -weight for arm, weight in weights.items()}
        return self.endpoint.name == endpoint and self.weights in (weights, turned)


def judge_study(
    evaluation: EvaluationConfig,
    endpoints: Sequence[MeasuredEndpoint],
    baseline: str,
    runs: Sequence[RunResult],
) -> StudyVerdicts:
    """Test every pair of arms on every endpoint, and every contrast of the recipe.

    Confirmatory are the pairs with the baseline arm on the primary endpoint, and the hypotheses. A
    hypothesis or a contrast on a pair is read off that pair's test, which is made once.

    Args:
        evaluation: settings that name the primary endpoint, contrasts, margins and confidence.
        endpoints: measures of the models.
        baseline: name of the baseline arm.
        runs: runs of the study.
    """
    by_name = {endpoint.name: endpoint for endpoint in endpoints}
    primary = evaluation.primary_endpoint
    claimed = _named_contrasts(evaluation.hypotheses, primary, by_name)
    looked_at = _named_contrasts(evaluation.contrasts, primary, by_name)

    # Pairs first, in the order of endpoints; then contrasts that are of no pair.
    planned: list[_Asked] = []
    for endpoint in endpoints:
        for a, b in itertools.combinations(endpoint.arms, 2):
            pair = _Asked(endpoint, {a: 1.0, b: -1.0}, "secondary")
            is_planned = endpoint.name == primary and baseline in (a, b)
            is_claimed = any(pair.is_of(c.endpoint, c.weights) for c in claimed.values())
            if is_planned or is_claimed:
                pair = _Asked(endpoint, pair.weights, "confirmatory")
            planned.append(pair)
    pair_count = len(planned)
    for family, contrasts in _families(claimed, looked_at):
        for contrast in contrasts.values():
            if not any(test.is_of(contrast.endpoint, contrast.weights) for test in planned):
                planned.append(_Asked(by_name[contrast.endpoint], contrast.weights, family))

    tests = []
    for test in planned:
        tests.append(contrast_test(evaluation, test.endpoint, test.weights, test.family, runs))
    outcomes = judge_tests(tests, evaluation.confidence)

    pairs = []
    for test, outcome in zip(planned[:pair_count], outcomes[:pair_count], strict=True):
        a, b = test.weights
        comparison = as_comparison(a, b, outcome)
        verdict = PairVerdict(test.endpoint.name, **asdict(comparison))
        pairs.append(_with_row_error(verdict, test.endpoint, runs, evaluation.confidence))
    verdicts = []
    for _, contrasts in _families(claimed, looked_at):
        for name, contrast in contrasts.items():
            verdicts.append(_contrast_verdict(name, contrast, planned, outcomes))
    return StudyVerdicts(tuple(pairs), tuple(verdicts))


def _with_row_error(
    verdict: PairVerdict,
    endpoint: MeasuredEndpoint,
    runs: Sequence[RunResult],
    confidence: float,
) -> PairVerdict:
    """Add the interval over seeds and rows, where it is stored which rows were right."""
    differences = row_differences(endpoint, runs, (verdict.a, verdict.b))
    if differences is None:
        return verdict
    _, low, high = crossed_interval(differences, confidence)
    return replace(verdict, rows_low=low, rows_high=high)


def values_by_arm(
    endpoint: MeasuredEndpoint, runs: Sequence[RunResult]
) -> dict[str, dict[int, float]]:
    """Return arm -> seed -> value, of the arms for which the endpoint means something.

    An arm of which a run has diverged has no values. It still counts as one that is tested.
    """
    values: dict[str, dict[int, float]] = {arm: {} for arm in endpoint.arms}
    diverged = diverged_arms(runs)
    for run in runs:
        if run.arm in values and run.arm not in diverged:
            values[run.arm][run.seed] = run.metrics[endpoint.name]
    return values


def resolution(endpoint: MeasuredEndpoint) -> float:
    """Return the smallest step of an endpoint's values: a row of a score, 0 of a loss."""
    if endpoint.scale == "nats":
        return 0.0
    return 1 / max(endpoint.rows, 1)


def _families(
    claimed: Mapping[str, ContrastConfig], looked_at: Mapping[str, ContrastConfig]
) -> list[tuple[Family, Mapping[str, ContrastConfig]]]:
    """Return the recipe's contrasts with the family of each group, hypotheses first."""
    return [("confirmatory", claimed), ("secondary", looked_at)]


def _named_contrasts(
    contrasts: Mapping[str, ContrastConfig],
    primary: str,
    endpoints: Mapping[str, MeasuredEndpoint],
) -> dict[str, ContrastConfig]:
    """Return contrasts with the names of their endpoints, without those that were not measured."""
    named = {}
    for name, contrast in contrasts.items():
        endpoint = contrast.endpoint or primary
        if endpoint in endpoints:
            named[name] = ContrastConfig(contrast.weights, endpoint, contrast.direction)
    return named


def contrast_test(
    evaluation: EvaluationConfig,
    endpoint: MeasuredEndpoint,
    weights: Weights,
    family: Family,
    runs: Sequence[RunResult],
) -> PairedTest:
    """Return the test of a contrast on an endpoint, over the runs of a study.

    Args:
        evaluation: settings with the margins.
        endpoint: the endpoint.
        weights: arm -> its weight; of a pair 1 and -1.
        family: family that it is tested in.
        runs: runs of the study.
    """
    # Arms are paired by seed: under one seed they saw the same text and masks.
    values = values_by_arm(endpoint, runs)
    used = [value for arm in weights for value in values.get(arm, {}).values()]
    # Where no arm has learnt anything, nothing tells them apart.
    unlearnt = unlearnt_arms(endpoint, runs)
    return PairedTest(
        differences=contrast_differences(values, weights),
        better=endpoint.better,
        margin=evaluation.margin_of(endpoint.scale),
        floor=smallest_spread(used, resolution(endpoint)),
        family=family,
        learnt=not unlearnt.issuperset(weights),
    )


def _contrast_verdict(
    name: str,
    contrast: ContrastConfig,
    planned: Sequence[_Asked],
    outcomes: Sequence[PairedOutcome],
) -> ContrastVerdict:
    """Return the verdict on a claim, from the test of its contrast."""
    number = next(
        number
        for number, test in enumerate(planned)
        if test.is_of(contrast.endpoint, contrast.weights)
    )
    outcome = outcomes[number]
    # The pair may have been tested the other way round.
    if planned[number].weights != contrast.weights:
        outcome = outcome.turned()
    return ContrastVerdict(
        name=name,
        endpoint=contrast.endpoint,
        weights=dict(contrast.weights),
        direction=contrast.direction,
        **{**asdict(outcome), "verdict": claim_verdict(outcome.verdict, contrast.direction)},
    )
