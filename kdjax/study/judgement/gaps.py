"""Tests of differences of differences: the gap between two arms in one study less that in another.

The paper's third claim is one: that distilling gains more where text is limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdjax.config import differences
from kdjax.errors import InputError
from kdjax.evaluation.statistics import (
    Family,
    PairedOutcome,
    PairedTest,
    difference_of_differences,
    judge_tests,
    smallest_spread,
)
from kdjax.evaluation.statistics.contrast import claim_verdict
from kdjax.report.margins import margin_of
from kdjax.results.failed import unlearnt_arms
from kdjax.results.gaps import GapChange
from kdjax.results.study import Results
from kdjax.results.verdicts import MeasuredEndpoint
from kdjax.study.judgement.verdicts import resolution, values_by_arm


@dataclass(frozen=True)
class Gap:
    """A gap that is compared between two studies, with its test.

    Attributes:
        endpoint: the endpoint, as the first study measured it.
        arm: name of the arm.
        baseline: name of the baseline arm.
        test: the test of the difference of differences.
    """

    endpoint: MeasuredEndpoint
    arm: str
    baseline: str
    test: PairedTest

    def change(self, first: str, second: str, outcome: PairedOutcome) -> GapChange:
        """Return the verdict on how the gap differs between two studies, as results hold it.

        Args:
            first: name of the first study.
            second: name of the second study.
            outcome: outcome of the gap's test.
        """
        return GapChange(
            endpoint=self.endpoint.name,
            arm=self.arm,
            baseline=self.baseline,
            first=first,
            second=second,
            **{**asdict(outcome), "verdict": claim_verdict(outcome.verdict, "better")},
        )


def gaps_between(
    config: Mapping[str, Any],
    first: Results,
    second: Results,
    baseline: str,
    confirmatory: str = "",
) -> list[Gap]:
    """Return the gaps of all arms to the baseline arm, on all endpoints that both studies have.

    Args:
        config: resolved recipe as plain values, with margins.
        first: results of one study.
        second: results of the other.
        baseline: name of the baseline arm, which both have.
        confirmatory: endpoint whose tests are confirmatory; empty: all are secondary.
    """
    of_second = {endpoint.name: endpoint for endpoint in second.endpoints}
    gaps = []
    for endpoint in first.endpoints:
        other = of_second.get(endpoint.name)
        if other is None or baseline not in endpoint.arms or baseline not in other.arms:
            continue
        family: Family = "confirmatory" if endpoint.name == confirmatory else "secondary"
        for arm in endpoint.arms:
            if arm != baseline and arm in other.arms:
                test = _test(config, (endpoint, other), (first, second), (arm, baseline))
                gaps.append(Gap(endpoint, arm, baseline, replace(test, family=family)))
    return gaps


def _test(
    config: Mapping[str, Any],
    endpoints: tuple[MeasuredEndpoint, MeasuredEndpoint],
    studies: tuple[Results, Results],
    arms: tuple[str, str],
) -> PairedTest:
    """Return the test of one gap between two studies."""
    values: list[tuple[Mapping[int, float], Mapping[int, float]]] = []
    has_learnt = False
    for endpoint, study in zip(endpoints, studies, strict=True):
        by_arm = values_by_arm(endpoint, study.runs)
        values.append((by_arm[arms[0]], by_arm[arms[1]]))
        has_learnt |= not unlearnt_arms(endpoint, study.runs).issuperset(arms)
    used: list[float] = []
    for arm, baseline in values:
        used += [*arm.values(), *baseline.values()]
    first = endpoints[0]
    return PairedTest(
        differences=difference_of_differences(*values),
        better=first.better,
        margin=margin_of(config, first),
        floor=smallest_spread(used, max(resolution(endpoint) for endpoint in endpoints)),
        learnt=has_learnt,
    )


def contrast_studies(
    first: Results, second: Results, names: tuple[str, str]
) -> tuple[GapChange, ...]:
    """Compare the gaps of all arms to the baseline arm between two finished studies.

    The first study's recipe says the baseline arm, margins, confidence and the primary endpoint,
    whose tests are confirmatory. All tests are adjusted together.

    Args:
        first: results of one study.
        second: results of the other.
        names: what the studies are called.

    Raises:
        InputError: the second study has no such baseline arm, or the two share no other arm on any
            endpoint.
    """
    baseline = first.baseline_arm
    if baseline not in second.arms:
        raise InputError(
            f"{names[1]}: arms are {', '.join(second.arms)}, expected {baseline} among them, the "
            f"baseline arm of {names[0]}"
        )
    gaps = gaps_between(first.config, first, second, baseline, first.primary or "")
    if not gaps:
        measured = "; ".join(
            f"{name} has {_measured(study)}"
            for name, study in zip(names, (first, second), strict=True)
        )
        raise InputError(
            f"{names[0]} and {names[1]}: no endpoint has {baseline} and another arm in both, "
            f"expected one at least; {measured}"
        )
    confidence = first.config["evaluation"]["confidence"]
    outcomes = judge_tests([gap.test for gap in gaps], confidence)
    return tuple(gap.change(*names, outcome) for gap, outcome in zip(gaps, outcomes, strict=True))


def _measured(study: Results) -> str:
    """Return a study's endpoints, each with the arms that have it."""
    if not study.endpoints:
        return "no endpoints"
    endpoints = [f"{endpoint.name} ({', '.join(endpoint.arms)})" for endpoint in study.endpoints]
    return ", ".join(endpoints)


def differing_settings(first: Results, second: Results) -> list[str]:
    """Return the settings in which two studies' recipes differ, by dotted name.

    Args:
        first: results of one study.
        second: results of the other.
    """
    return [name for name, _, _ in differences(first.config, second.config)]
