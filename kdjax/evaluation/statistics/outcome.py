"""All tests of a study, judged together: intervals, adjusted p-values, verdicts and power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdjax.errors import InputError
from kdjax.evaluation.statistics.multiple_testing import (
    Family,
    adjust_families,
    alpha_shares,
    level_of_open_test,
)
from kdjax.evaluation.statistics.paired_mean import Estimate, estimate
from kdjax.evaluation.statistics.power import seeds_needed, smallest_detectable
from kdjax.evaluation.statistics.verdict_rule import (
    OTHER_SIDE,
    ArmVerdict,
    Better,
    check_settings,
    decide_verdict,
)


@dataclass(frozen=True)
class PairedTest:
    """A null hypothesis: the mean of paired differences is 0.

    Attributes:
        differences: one for each seed that both sides have.
        better: whether higher or lower values are better.
        margin: the largest difference that does not matter, in the endpoint's unit.
        floor: the smallest spread that is believed; see `smallest_spread`.
        family: family that it is tested in.
        learnt: whether any side is above the score of a constant; else its answer says nothing.
    """

    differences: tuple[float, ...]
    better: Better
    margin: float
    floor: float = 0.0
    family: Family = "confirmatory"
    learnt: bool = True

    @property
    def is_testable(self) -> bool:
        """Return whether there are two seeds, and a side that has learnt something."""
        return len(self.differences) > 1 and self.learnt


@dataclass(frozen=True)
class PairedOutcome:
    """The outcome of a test among the tests of its study, read from the first side.

    Attributes:
        difference: mean over shared seeds, in the endpoint's unit; None without a shared seed.
        low, high: ends of its unadjusted interval; None with fewer than two shared seeds.
        n: number of shared seeds.
        p_value: two-sided p-value of the paired t-test; None where it cannot be tested.
        p_adjusted: the p-value adjusted for both families; None where `p_value` is.
        family: family that it was tested in.
        verdict: word of the test (`decide_verdict`); INCONCLUSIVE with fewer than two shared seeds,
            and NOT LEARNT where neither side has learnt anything.
        detectable: of an INCONCLUSIVE test, the smallest true difference that it finds with 80%
            power, by the spread it saw and at the level it had to reach; else None.
        seeds_needed: of an INCONCLUSIVE test, the seeds that it takes to find the observed
            difference with 80% power, were that and the spread the true ones; None where that is
            more than 1,000, or there is no `detectable`.
    """

    difference: float | None
    low: float | None
    high: float | None
    n: int
    p_value: float | None
    p_adjusted: float | None
    family: Family
    verdict: ArmVerdict
    detectable: float | None = None
    seeds_needed: int | None = None

    def turned(self) -> PairedOutcome:
        """Return the same outcome, read from the other side."""
        return replace(
            self,
            difference=_negated(self.difference),
            low=_negated(self.high),
            high=_negated(self.low),
            verdict=OTHER_SIDE[self.verdict],
        )


def judge_tests(tests: Sequence[PairedTest], confidence: float) -> list[PairedOutcome]:
    """Judge all tests of a study together.

    The verdict of each is that of `decide_verdict`: significant where its p-value, adjusted over
    both families, is at most alpha = 1 - confidence; a tie where two one-sided tests at alpha show
    that the difference lies within the margin.

    What intervals and tests cover: the mean difference over seeds (start, data order, masks, head),
    taking differences as normal. The test set is the same in every run, so they say nothing about
    another sample of test rows, another corpus or another tuning of the arms. With two or three
    seeds they lean on normality.

    Args:
        tests: every test that the study makes. One that cannot be made counts as one with p-value
            1, so that leaving seeds out makes nothing else significant.
        confidence: coverage of the intervals; 1 - confidence is the chance of naming any false
            winner, however many tests there are.

    Returns:
        An outcome for each test, in their order.

    Raises:
        InputError: a confidence outside (0, 1), or a margin that is negative or not finite.
    """
    # The mean difference of each test, where there are seeds enough
    alpha = 1 - confidence
    estimates: list[Estimate | None] = []
    for test in tests:
        check_settings(confidence, test.margin)
        over_seeds = estimate(test.differences, test.floor) if len(test.differences) > 1 else None
        estimates.append(over_seeds)

    # Both families are adjusted together, as the second one's level hangs on the first.
    p_values = []
    for test, over_seeds in zip(tests, estimates, strict=True):
        p_value = 1.0
        if test.is_testable and over_seeds is not None:
            p_value = float(over_seeds.p_value())
        p_values.append(p_value)
    adjusted = _adjusted(tests, p_values)
    levels = _levels(tests, adjusted, alpha)

    # An interval for each, and a verdict at its adjusted level
    outcomes = []
    for number, (test, over_seeds) in enumerate(zip(tests, estimates, strict=True)):
        if over_seeds is None:
            outcomes.append(_untested(test))
            continue
        low, high = over_seeds.interval(confidence)
        measured = replace(
            _untested(test), difference=float(over_seeds.mean), low=float(low), high=float(high)
        )
        if not test.learnt:
            outcomes.append(measured)
            continue
        verdict = decide_verdict(
            float(over_seeds.mean),
            is_tie=bool(over_seeds.is_within(test.margin, alpha)),
            is_significant=adjusted[number] <= alpha,
            better=test.better,
        )
        tested = replace(
            measured, p_value=p_values[number], p_adjusted=adjusted[number], verdict=verdict
        )
        if verdict == "INCONCLUSIVE":
            tested = _with_power(tested, over_seeds, levels[test.family])
        outcomes.append(tested)
    return outcomes


def paired_differences(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, ...]:
    """Compute a − b of each seed that both arms have, in the order of seeds.

    Args:
        a: seed -> value of the first arm.
        b: seed -> value of the second arm.
    """
    return tuple(a[seed] - b[seed] for seed in sorted(a.keys() & b.keys()))


def check_finite(values: Mapping[str, Mapping[int, float]]) -> None:
    """Check that all values are finite.

    Args:
        values: arm -> seed -> value of the endpoint.

    Raises:
        InputError: one is not.
    """
    for name, by_seed in values.items():
        for seed, value in by_seed.items():
            if not np.isfinite(value):
                raise InputError(
                    f"comparison: arm {name!r}, seed {seed}: value is {value}, expected a finite "
                    "number"
                )


def _negated(value: float | None) -> float | None:
    """Return a number with the other sign, if there is one."""
    if value is None:
        return None
    return -value


def _untested(test: PairedTest) -> PairedOutcome:
    """Return the outcome of a test that cannot be made."""
    verdict: ArmVerdict = "INCONCLUSIVE" if test.learnt else "NOT LEARNT"
    only_difference = next(iter(test.differences), None)
    n = len(test.differences)
    return PairedOutcome(only_difference, None, None, n, None, None, test.family, verdict)


def _adjusted(tests: Sequence[PairedTest], p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted over both families, in the order of the tests."""
    numbers: dict[Family, list[int]] = {"confirmatory": [], "secondary": []}
    for number, test in enumerate(tests):
        numbers[test.family].append(number)
    by_family = [[p_values[number] for number in group] for group in numbers.values()]
    adjusted = [1.0] * len(tests)
    for group, values in zip(numbers.values(), adjust_families(*by_family), strict=True):
        for number, value in zip(group, values.tolist(), strict=True):
            adjusted[number] = value
    return adjusted


def _levels(
    tests: Sequence[PairedTest], adjusted: Sequence[float], alpha: float
) -> dict[Family, float]:
    """Return family -> the level that its tests which did not reject had to reach."""
    counts: dict[Family, int] = {"confirmatory": 0, "secondary": 0}
    rejected: dict[Family, int] = {"confirmatory": 0, "secondary": 0}
    for test, value in zip(tests, adjusted, strict=True):
        counts[test.family] += 1
        rejected[test.family] += value <= alpha
    first, second = alpha_shares(*counts.values())
    if rejected["confirmatory"] == counts["confirmatory"]:
        second = 1.0
    family_levels: dict[Family, float] = {
        "confirmatory": first * alpha,
        "secondary": second * alpha,
    }
    levels: dict[Family, float] = {}
    for family, level in family_levels.items():
        if rejected[family] < counts[family]:
            levels[family] = level_of_open_test(rejected[family], counts[family], level)
    return levels


def _with_power(outcome: PairedOutcome, over_seeds: Estimate, level: float) -> PairedOutcome:
    """Add to an inconclusive outcome what its study could have seen."""
    spread = float(over_seeds.spread)
    # Without any spread (of values that are all 0) nothing can be said.
    if not spread:
        return outcome
    return replace(
        outcome,
        detectable=smallest_detectable(spread, over_seeds.n, level),
        seeds_needed=seeds_needed(float(over_seeds.mean), spread, level),
    )
