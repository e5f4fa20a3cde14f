"""Verdicts on pairs of arms: paired Student-t intervals over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kdjax.errors import InputError

Verdict = Literal["BEATS", "TIES", "INCONCLUSIVE"]
ArmVerdict = Literal["BEATS", "LOSES", "TIES", "INCONCLUSIVE"]
"""A verdict on a pair, read from the side of one of its arms."""
OTHER_SIDE: dict[ArmVerdict, ArmVerdict] = {
    "BEATS": "LOSES",
    "LOSES": "BEATS",
    "TIES": "TIES",
    "INCONCLUSIVE": "INCONCLUSIVE",
}
"""Verdict from the side of one arm of a pair -> from that of the other."""
Better = Literal["higher", "lower"]

ROUNDINGS = 8
"""Roundings between two values and the end of an interval of their differences, at most: of each
value, the difference, the mean, the spread, its product and the end itself."""


@dataclass(frozen=True)
class Comparison:
    """Two arms compared on one endpoint over their shared seeds, read as `a verdict b`.

    Attributes:
        a: name of the first arm; of a pair with a winner, the winner.
        b: name of the second arm.
        difference: mean over seeds of (a's value - b's value), in the endpoint's unit; None without
            a shared seed.
        low, high: ends of the confidence interval of that mean; None with fewer than two shared
            seeds.
        n: number of shared seeds.
        verdict: see `paired`.
    """

    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    verdict: Verdict


def interval(
    differences: ArrayLike, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean and its Student-t confidence interval, over the last axis.

    mean -+ t * s / sqrt(n), with s the sample standard deviation (n - 1 in its denominator) and t
    the quantile (1 + confidence) / 2 of Student's t with n - 1 degrees of freedom. Where all
    differences are equal it has no width.

    Args:
        differences: `[..., n]`, n at least 2: one paired difference per seed.
        confidence: nominal coverage, between 0 and 1.

    Returns:
        mean, low, high: `[...]` each.

    Raises:
        InputError: fewer than two differences, or a confidence outside (0, 1).
    """
    values = np.asarray(differences, np.float64)
    n = values.shape[-1]
    if n < 2:
        raise InputError(f"interval: found {n} paired difference(s), expected at least 2")
    _check(confidence, 0.0)
    mean = values.mean(-1)
    # Equal values must give s = 0 exactly; their computed mean can differ from them in the last
    # bit.
    spread = np.where(np.ptp(values, axis=-1) == 0, 0.0, values.std(-1, ddof=1))
    half_width = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    return mean, mean - half_width, mean + half_width


def paired(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    names: tuple[str, str] = ("a", "b"),
    confidence: float,
    margin: float,
    better: Better = "higher",
) -> Comparison:
    """Compare two arms on one endpoint over the seeds they share.

    The verdict is that of `decide_verdict`, where the arms differ if the interval leaves out 0;
    with fewer than two shared seeds it is INCONCLUSIVE. Of a pair with a winner, the winner is
    stored as `a`, so the sign of `difference` follows `better`.

    What the interval covers: the mean difference over seeds (start, data order, masks, head),
    taking differences as normal. The test set is the same in every run, so the interval says
    nothing about another sample of test rows, nor about another corpus or another tuning of the
    arms. With two or three seeds it is wide and leans on normality; seeds that all show the same
    non-zero difference give an interval of no width, which is less certain than it looks. No
    adjustment is made for looking at many pairs and endpoints: see `expected_false`.

    Args:
        a, b: seed -> value of the endpoint.
        names: names of the arms that `a` and `b` are of.
        confidence: nominal coverage of the interval, between 0 and 1.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.

    Raises:
        InputError: a value that is not finite (in any seed, shared or not), a confidence outside
            (0, 1), a margin that is negative or not finite.
    """
    _check(confidence, margin)
    _check_finite({names[0]: a, names[1]: b})
    differences = _paired_differences(a, b)
    n = len(differences)
    if n < 2:
        only_difference = next(iter(differences), None)
        return Comparison(*names, only_difference, None, None, n, "INCONCLUSIVE")
    mean, low, high = map(float, interval(differences, confidence))
    verdict = decide_verdict(
        mean,
        low,
        high,
        differ=not low <= 0 <= high,
        margin=margin,
        better=better,
        values=[*a.values(), *b.values()],
    )
    if verdict == "LOSES":
        # The winner is stored first, so the difference turns round.
        return Comparison(names[1], names[0], -mean, -high, -low, n, "BEATS")
    return Comparison(*names, mean, low, high, n, verdict)


def decide_verdict(
    mean: float,
    low: float,
    high: float,
    *,
    differ: bool,
    margin: float,
    better: Better,
    values: Sequence[float],
) -> ArmVerdict:
    """Decide what two arms' differences say of the first arm.

    | interval within the margin | the arms differ | the first is better | verdict |
    |---|---|---|---|
    | yes | yes or no | yes or no | TIES |
    | no | yes | yes | BEATS |
    | no | yes | no | LOSES |
    | no | no | yes or no | INCONCLUSIVE |

    Arms tie also where the interval leaves out 0: the margin is the smallest difference the user
    cares about, and an interval within it shows that the true one is smaller, however sure its sign
    is.

    Args:
        mean: mean difference, first arm - second arm.
        low, high: ends of its interval.
        differ: whether a test, or the interval, says that the mean difference is not 0.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.
        values: the values whose differences the interval is of, whose rounding is allowed for.
    """
    if _is_within_margin(low, high, margin, values):
        return "TIES"
    if not differ:
        return "INCONCLUSIVE"
    if (mean > 0) == (better == "higher"):
        return "BEATS"
    return "LOSES"


def compare_all(
    values: Mapping[str, Mapping[int, float]],
    *,
    confidence: float,
    margin: float,
    better: Better = "higher",
) -> list[Comparison]:
    """Compare every pair of arms on one endpoint, each over the seeds that the two share.

    Args:
        values: arm -> seed -> value of the endpoint.
        confidence, margin, better: as for `paired`.

    Returns:
        A comparison for each pair, in the order of `values`.

    Raises:
        InputError: a value, confidence or margin that `paired` refuses.

    Example:
        >>> values = {"scratch": {0: 0.70, 1: 0.73}, "logit": {0: 0.80, 1: 0.84}}
        >>> (comparison,) = compare_all(values, confidence=0.8, margin=0.01)
        >>> comparison.a, comparison.verdict, round(comparison.difference, 3)
        ('logit', 'BEATS', 0.105)
    """
    return [
        paired(
            values[a], values[b], names=(a, b), confidence=confidence, margin=margin, better=better
        )
        for a, b in itertools.combinations(values, 2)
    ]


@dataclass(frozen=True)
class BaselineComparison:
    """One arm against the baseline arm on the primary endpoint, among others tested beside it.

    Attributes:
        arm: name of the arm.
        baseline: name of the baseline arm.
        difference: mean over shared seeds of (arm's value - baseline's value), in the endpoint's
            unit; None without a shared seed.
        low, high: ends of the unadjusted confidence interval of that mean; None with fewer than two
            shared seeds.
        n: number of shared seeds.
        p_value: two-sided p-value of the paired t-test; None with fewer than two shared seeds, and
            for an arm that is untestable.
        p_adjusted: `p_value` after Holm's adjustment over all arms that are tested; None where
            `p_value` is.
        verdict: that of `decide_verdict`, read from the arm's side, where the arms differ if the
            adjusted p-value is at most 1 - confidence; INCONCLUSIVE without a p-value.
    """

    arm: str
    baseline: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    p_value: float | None
    p_adjusted: float | None
    verdict: ArmVerdict


def paired_p_value(differences: ArrayLike) -> float:
    """Compute the two-sided p-value of the paired t-test: is the mean difference 0?

    Args:
        differences: `[n]`, n at least 2: one paired difference per seed.

    Returns:
        The probability, if the true mean were 0, of a mean at least this far from 0 in units of its
        standard error; where all differences are equal, 1 if they are 0 and 0 otherwise.

    Raises:
        InputError: fewer than two differences.
    """
    values = np.asarray(differences, np.float64)
    n = len(values)
    if n < 2:
        raise InputError(f"paired t-test: found {n} paired difference(s), expected at least 2")
    if np.ptp(values) == 0:
        return float(values[0] == 0)
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family of tests by Holm's step-down method.

    Rejecting every hypothesis whose adjusted p-value is at most α keeps the probability of any
    false rejection in the family at α or below.

    The k-th smallest of m is multiplied by m - k + 1, made at least as large as the one before it,
    and cut at 1 (Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6). It holds however the tests depend on one another.

    Args:
        p_values: p-values of the tests of one family.

    Returns:
        The adjusted p-values, in the order of `p_values`.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        scaled = (len(p_values) - rank) * p_values[index]
        largest = max(largest, min(1.0, scaled))
        adjusted[index] = largest
    return adjusted


def against_baseline(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    confidence: float,
    margin: float = 0.0,
    better: Better = "higher",
    untestable: Collection[str] = (),
) -> list[BaselineComparison]:
    """Test every arm against the baseline arm on one endpoint, with Holm's adjustment over all.

    Args:
        values: arm -> seed -> value of the endpoint; the baseline arm is among them.
        baseline: name of the baseline arm.
        confidence: coverage of the intervals; 1 - confidence is the chance of naming any arm
            falsely, were none different.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.
        untestable: arms whose difference from the baseline says nothing, whatever it is.

    Returns:
        A comparison for each arm but the baseline, in the order of `values`. An arm without two
        shared seeds, or that is untestable, is INCONCLUSIVE without a p-value, and counts in the
        adjustment as a test with p-value 1.

    Raises:
        InputError: a value that is not finite, a confidence outside (0, 1), or a negative margin.
    """
    _check(confidence, margin)
    _check_finite(values)
    rivals = [arm for arm in values if arm != baseline]
    differences = {arm: _paired_differences(values[arm], values[baseline]) for arm in rivals}

    # An arm that cannot be tested still counts as a test, so that leaving seeds out makes nothing
    # significant.
    p_values = []
    for arm in rivals:
        is_testable = len(differences[arm]) > 1 and arm not in untestable
        p_values.append(paired_p_value(differences[arm]) if is_testable else 1.0)

    comparisons = []
    for arm, p_value, p_adjusted in zip(rivals, p_values, holm(p_values), strict=True):
        n = len(differences[arm])
        undecided = BaselineComparison(
            arm, baseline, None, None, None, n, None, None, "INCONCLUSIVE"
        )
        if n < 2:
            only_difference = next(iter(differences[arm]), None)
            comparisons.append(replace(undecided, difference=only_difference))
            continue
        mean, low, high = map(float, interval(differences[arm], confidence))
        measured = replace(undecided, difference=mean, low=low, high=high)
        if arm in untestable:
            comparisons.append(measured)
            continue
        verdict = decide_verdict(
            mean,
            low,
            high,
            differ=p_adjusted <= 1 - confidence,
            margin=margin,
            better=better,
            values=[*values[arm].values(), *values[baseline].values()],
        )
        comparisons.append(
            replace(measured, p_value=p_value, p_adjusted=p_adjusted, verdict=verdict)
        )
    return comparisons


def expected_false(count: int, confidence: float) -> float:
    """Compute how many unadjusted intervals leave out 0 on average, were all arms alike.

    By linearity of expectation this holds although pairs share runs and are not independent. It is
    an upper bound on the expected number of false `BEATS`, since some of these intervals lie within
    the margin and are ties.

    Args:
        count: number of pairs times number of endpoints looked at.
        confidence: nominal coverage of each interval.
    """
    return count * (1 - confidence)


def _is_within_margin(low: float, high: float, margin: float, values: Sequence[float]) -> bool:
    """Return whether an interval of differences lies within -margin to +margin.

    An end on the margin itself is within it, however the differences were rounded.

    Args:
        low, high: ends of the interval.
        margin: the largest difference that does not matter.
        values: the values whose differences the interval is of.
    """
    rounding = ROUNDINGS * np.finfo(np.float64).eps * max(map(abs, values))
    return bool(-margin - rounding <= low and high <= margin + rounding)


def _paired_differences(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    """Subtract b's values from a's, over the seeds that both have."""
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def _check_finite(values: Mapping[str, Mapping[int, float]]) -> None:
    for name, by_seed in values.items():
        for seed, value in by_seed.items():
            if not np.isfinite(value):
                raise InputError(
                    f"comparison: arm {name!r}, seed {seed}: value is {value}, expected a finite "
                    "number"
                )


def _check(confidence: float, margin: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(
            f"evaluation.confidence is {confidence}, expected a number between 0 and 1, both "
            "excluded"
        )
    if not 0 <= margin < float("inf"):
        raise InputError(f"evaluation.margin is {margin}, expected a finite number of at least 0")
