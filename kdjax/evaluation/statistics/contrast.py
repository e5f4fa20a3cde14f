"""Contrasts of arms: weighted sums of their values, such as a difference of two differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kdjax.config.verdicts import check_weights
from kdjax.evaluation.statistics.outcome import (
    PairedOutcome,
    PairedTest,
    check_finite,
    judge_tests,
    paired_differences,
)
from kdjax.evaluation.statistics.paired_mean import smallest_spread
from kdjax.evaluation.statistics.verdict_rule import ArmVerdict, Better

ClaimVerdict = Literal["SUPPORTED", "REFUTED", "TIES", "INCONCLUSIVE", "NOT LEARNT"]
"""What tests say of a claim; TIES: the contrast is shown to lie within the margin."""
Direction = Literal["better", "worse"]

_OF_BETTER: dict[ArmVerdict, ClaimVerdict] = {
    "BEATS": "SUPPORTED",
    "LOSES": "REFUTED",
    "TIES": "TIES",
    "INCONCLUSIVE": "INCONCLUSIVE",
    "NOT LEARNT": "NOT LEARNT",
}
_OF_WORSE: dict[ArmVerdict, ClaimVerdict] = {
    **_OF_BETTER,
    "BEATS": "REFUTED",
    "LOSES": "SUPPORTED",
}


@dataclass(frozen=True)
class ContrastOutcome:
    """A contrast and what its test says.

    Attributes:
        outcome: the outcome, where BEATS says that the positive side is better.
        claim: what it says of the claim that was made.
    """

    outcome: PairedOutcome
    claim: ClaimVerdict


def claim_verdict(verdict: ArmVerdict, direction: Direction) -> ClaimVerdict:
    """Translate a verdict on two arms into a verdict on the claim about them.

    Args:
        verdict: verdict read from the contrast's positive side.
        direction: whether the claim is that the positive side is better, or that it is worse.
    """
    if direction == "better":
        return _OF_BETTER[verdict]
    return _OF_WORSE[verdict]


def contrast_differences(
    values: Mapping[str, Mapping[int, float]], weights: Mapping[str, float]
) -> tuple[float, ...]:
    """Compute a contrast of arms for each seed that all of them have.

    Args:
        values: arm -> seed -> value of the endpoint.
        weights: arm -> its weight in the sum; they sum to 0, so that what a seed adds to all arms
            falls out.

    Returns:
        One value for each shared seed, in the order of seeds.
    """
    seeds = set.intersection(*(set(values.get(arm, {})) for arm in weights))
    contrasts = []
    for seed in sorted(seeds):
        contrasts.append(sum(weight * values[arm][seed] for arm, weight in weights.items()))
    return tuple(contrasts)


def difference_of_differences(
    first: tuple[Mapping[int, float], Mapping[int, float]],
    second: tuple[Mapping[int, float], Mapping[int, float]],
) -> tuple[float, ...]:
    """Compute (a - b) of a first study less (a - b) of a second one, for each seed all four have.

    For instance distillation less pretraining on little text, less the same on much text. Under one
    seed the runs of both studies share start and order, so they are paired across studies as well.

    Args:
        first: seed -> value, of arm a and of arm b, in the first study.
        second: seed -> value, of arm a and of arm b, in the second study.

    Returns:
        One value for each shared seed, in the order of seeds.
    """
    gaps = []
    for a, b in (first, second):
        shared = sorted(a.keys() & b.keys())
        gaps.append(dict(zip(shared, paired_differences(a, b), strict=True)))
    return paired_differences(*gaps)


def judge_contrast(
    values: Mapping[str, Mapping[int, float]],
    weights: Mapping[str, float],
    *,
    direction: Direction = "better",
    confidence: float,
    margin: float = 0.0,
    better: Better = "higher",
    resolution: float = 0.0,
) -> ContrastOutcome:
    """Test a contrast of arms, as the only test that is made.

    Args:
        values: arm -> seed -> value of the endpoint.
        weights: arm -> its weight in the sum.
        direction: what is claimed of the positive side.
        confidence: nominal coverage of the interval, between 0 and 1.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.
        resolution: smallest step of the endpoint, such as 1 / rows of an accuracy.

    Raises:
        InputError: a value that is not finite, weights that are not of two arms at least or do not
            sum to 0, a confidence outside (0, 1), a margin that is negative or not finite.

    Example:
        >>> small = {"kd": {0: 3.0, 1: 3.1, 2: 3.0}, "scratch": {0: 3.5, 1: 3.7, 2: 3.55}}
        >>> tested = judge_contrast(
        ...     small, {"kd": 1, "scratch": -1}, confidence=0.95, better="lower"
        ... )
        >>> tested.claim, round(tested.outcome.difference, 2)
        ('SUPPORTED', -0.55)
    """
    check_finite(values)
    check_weights(weights, "weights")
    used = [value for arm in weights for value in values.get(arm, {}).values()]
    test = PairedTest(
        contrast_differences(values, weights),
        better,
        margin,
        smallest_spread(used, resolution),
    )
    (outcome,) = judge_tests([test], confidence)
    return ContrastOutcome(outcome, claim_verdict(outcome.verdict, direction))
