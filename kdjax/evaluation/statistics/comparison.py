"""Verdicts on pairs of arms on one endpoint, for programs that hold the values themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from kdjax.evaluation.statistics.multiple_testing import Family
from kdjax.evaluation.statistics.outcome import (
    PairedOutcome,
    PairedTest,
    check_finite,
    judge_tests,
    paired_differences,
)
from kdjax.evaluation.statistics.paired_mean import smallest_spread
from kdjax.evaluation.statistics.verdict_rule import Better, Verdict


@dataclass(frozen=True)
class Comparison:
    """Two arms compared on one endpoint over their shared seeds, read as `a verdict b`.

    Attributes:
        a: name of the first arm; of a pair with a winner, the winner.
        b: name of the second arm.
        difference: mean over seeds of (a's value - b's value), in the endpoint's unit; None without
            a shared seed.
        low, high: ends of the unadjusted confidence interval of that mean; None with fewer than two
            shared seeds.
        n: number of shared seeds.
        verdict: word of the test, as `kdjax.evaluation.statistics.judge_tests` gives it.
        p_value: two-sided p-value of the paired t-test; None where it cannot be tested.
        p_adjusted: the p-value adjusted for both families; None where `p_value` is.
        family: family that the pair was tested in.
        detectable: smallest true difference found with 80% power (`PairedOutcome`).
        seeds_needed: number of seeds that finds the observed one as often (`PairedOutcome`).
    """

    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    verdict: Verdict
    p_value: float | None
    p_adjusted: float | None
    family: Family
    detectable: float | None
    seeds_needed: int | None


def as_comparison(a: str, b: str, outcome: PairedOutcome) -> Comparison:
    """Name an outcome's sides; of a pair with a winner, the winner comes first.

    Args:
        a: name of the arm whose values come first in the outcome's difference.
        b: name of the other arm.
        outcome: the outcome.
    """
    if outcome.verdict == "LOSES":
        return as_comparison(b, a, outcome.turned())
    return Comparison(a, b, **asdict(outcome))


def compare_pair(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    names: tuple[str, str] = ("a", "b"),
    confidence: float,
    margin: float,
    better: Better = "higher",
    resolution: float = 0.0,
) -> Comparison:
    """Compare two arms on one endpoint over the seeds they share, as the only test that is made.

    Whoever looks at more pairs or endpoints than one should judge them together: `compare_all`,
    or `judge_tests` over endpoints.

    Args:
        a: seed -> value of the endpoint, of one arm.
        b: seed -> value, of the other arm.
        names: names of the arms that `a` and `b` are of.
        confidence: nominal coverage of the interval, between 0 and 1.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.
        resolution: smallest step of the endpoint, such as 1 / rows of an accuracy.

    Raises:
        InputError: a value that is not finite (in any seed, shared or not), a confidence outside
            (0, 1), a margin that is negative or not finite.
    """
    check_finite({names[0]: a, names[1]: b})
    floor = smallest_spread([*a.values(), *b.values()], resolution)
    test = PairedTest(paired_differences(a, b), better, margin, floor)
    (outcome,) = judge_tests([test], confidence)
    return as_comparison(*names, outcome)


def compare_all(
    values: Mapping[str, Mapping[int, float]],
    *,
    confidence: float,
    margin: float,
    better: Better = "higher",
    baseline: str | None = None,
    resolution: float = 0.0,
) -> list[Comparison]:
    """Compare every pair of arms on one endpoint, each over the seeds that the two share.

    The chance that any pair is named falsely is at most 1 - confidence, however many arms there
    are.

    Args:
        values: arm -> seed -> value of the endpoint.
        confidence: nominal coverage of the intervals, between 0 and 1.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.
        baseline: arm whose pairs are the confirmatory family, all others being secondary; None: all
            pairs are one family.
        resolution: smallest step of the endpoint, such as 1 / rows of an accuracy.

    Returns:
        A comparison for each pair, in the order of `values`.

    Raises:
        InputError: a value, confidence or margin that `compare_pair` refuses.

    Example:
        >>> values = {"scratch": {0: 0.70, 1: 0.73}, "logit": {0: 0.80, 1: 0.84}}
        >>> (comparison,) = compare_all(values, confidence=0.8, margin=0.01)
        >>> comparison.a, comparison.verdict, round(comparison.difference, 3)
        ('logit', 'BEATS', 0.105)
    """
    check_finite(values)
    pairs = list(itertools.combinations(values, 2))
    tests = []
    for a, b in pairs:
        family: Family = "confirmatory"
        if baseline is not None and baseline not in (a, b):
            family = "secondary"
        floor = smallest_spread([*values[a].values(), *values[b].values()], resolution)
        differences = paired_differences(values[a], values[b])
        tests.append(PairedTest(differences, better, margin, floor, family))
    outcomes = judge_tests(tests, confidence)
    return [as_comparison(*pair, outcome) for pair, outcome in zip(pairs, outcomes, strict=True)]
