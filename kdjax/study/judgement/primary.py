"""The primary endpoint: every arm against the baseline arm, with Holm's adjustment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdjax.config import EvaluationConfig
from kdjax.evaluation.statistics import against_baseline
from kdjax.results.failed import failed_arms
from kdjax.results.runs import RunResult, diverged_arms
from kdjax.results.verdicts import MeasuredEndpoint, PairVerdict, PrimaryResult


def primary_endpoint(
    evaluation: EvaluationConfig,
    endpoints: Sequence[MeasuredEndpoint],
    baseline: str,
    runs: Sequence[RunResult],
) -> PrimaryResult | None:
    """Test every arm that has the primary endpoint against the baseline arm.

    Args:
        evaluation: settings that name the primary endpoint, and its confidence.
        endpoints: measures of the models.
        baseline: name of the baseline arm.
        runs: runs of the study.

    Returns:
        The tests; None where the recipe names no primary endpoint, or the baseline arm or every
        other arm lacks it.
    """
    endpoint = next((e for e in endpoints if e.name == evaluation.primary), None)
    if endpoint is None or baseline not in endpoint.arms or len(endpoint.arms) < 2:
        return None
    # Two arms that both failed to learn the task are not told apart.
    failed = failed_arms(endpoint, runs)
    untestable = failed if baseline in failed else frozenset()
    # Arms are paired by seed: under one seed they saw the same text and masks.
    comparisons = against_baseline(
        values_by_arm(endpoint, runs),
        baseline,
        confidence=evaluation.confidence,
        margin=evaluation.margin,
        better=endpoint.better,
        untestable=untestable,
    )
    return PrimaryResult(endpoint.name, baseline, tuple(comparisons))


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


def after_holm(
    verdicts: Sequence[PairVerdict], primary: PrimaryResult | None
) -> tuple[PairVerdict, ...]:
    """Make a win against the baseline arm INCONCLUSIVE where Holm's adjustment does not confirm it.

    Args:
        verdicts: verdicts on one endpoint.
        primary: the tests on the primary endpoint; None without one.

    Returns:
        The same verdicts; those of the primary endpoint's tests are INCONCLUSIVE where the
        test is and the unadjusted interval alone would have named a winner.
    """
    if primary is None:
        return tuple(verdicts)
    # Sets, as a verdict may have the baseline arm on either side.
    undecided = {
        frozenset((comparison.arm, primary.baseline))
        for comparison in primary.comparisons
        if comparison.verdict == "INCONCLUSIVE"
    }
    adjusted = list(verdicts)
    for number, verdict in enumerate(verdicts):
        is_undecided = frozenset((verdict.a, verdict.b)) in undecided
        is_win = verdict.endpoint == primary.endpoint and verdict.verdict == "BEATS"
        if is_win and is_undecided:
            adjusted[number] = replace(verdict, verdict="INCONCLUSIVE")
    return tuple(adjusted)
