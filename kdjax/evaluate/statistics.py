"""Verdicts on pairs of arms: paired Student-t intervals over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kdjax.errors import InputError

Verdict = Literal["BEATS", "TIES", "INCONCLUSIVE"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Comparison:
    """What the shared seeds say about two arms on one endpoint. It reads `a verdict b`.

    Attributes:
        a: name of the first arm; of a pair with a winner, the winner.
        b: name of the second arm.
        difference: mean over seeds of (a's value - b's value), in the endpoint's unit; None without a shared seed.
        low, high: ends of the confidence interval of that mean; None with fewer than two shared seeds.
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
    """Mean and Student-t confidence interval of the mean, over the last axis.

    mean -+ t * s / sqrt(n), with s the sample standard deviation (n - 1 in its denominator) and t the quantile
    (1 + confidence) / 2 of Student's t with n - 1 degrees of freedom. Where all differences are equal it has no width.

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
    # Equal values must give s = 0 exactly; their computed mean can differ from them in the last bit.
    spread = np.where(np.ptp(values, axis=-1) == 0, 0.0, values.std(-1, ddof=1))
    reach = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / np.sqrt(n)
    return mean, mean - reach, mean + reach


def paired(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    names: tuple[str, str] = ("a", "b"),
    confidence: float,
    margin: float,
    better: Better = "higher",
) -> Comparison:
    """Compares two arms on one endpoint over the seeds they share.

    The verdict:

    * `TIES`: the whole interval lies within -margin to +margin. This holds also where the interval leaves out 0: the
      margin is the smallest difference the user cares about, and such an interval shows that the true one is smaller,
      however sure its sign is.
    * `BEATS`: otherwise, the interval leaves out 0. The result is stored with the better arm as `a`, so the
      sign of `difference` follows `better`.
    * `INCONCLUSIVE`: neither, or fewer than two shared seeds.

    What the interval covers: the mean difference over seeds (start, data order, masks, head), taking differences as
    normal. The test set is the same in every run, so the interval says nothing about another sample of test rows, nor
    about another corpus or another tuning of the arms. With two or three seeds it is wide and leans on normality; seeds
    that all show the same non-zero difference give an interval of no width, which is less certain than it looks.
    No adjustment is made for looking at many pairs and endpoints: see `expected_false`.

    Args:
        a, b: seed -> value of the endpoint.
        names: the arms' names.
        confidence: nominal coverage of the interval, between 0 and 1.
        margin: the largest difference that does not matter, in the endpoint's unit; 0 or more.
        better: whether higher or lower values are better.

    Raises:
        InputError: a value that is not finite (in any seed, shared or not), a confidence outside (0, 1), a margin
            that is negative or not finite.
    """
    _check(confidence, margin)
    for name, values in zip(names, (a, b), strict=True):
        for seed, value in values.items():
            if not np.isfinite(value):
                raise InputError(f"comparison: arm {name!r}, seed {seed}: value is {value}, expected a finite number")
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    n = len(differences)
    if n < 2:
        return Comparison(*names, differences[0] if differences else None, None, None, n, "INCONCLUSIVE")
    mean, low, high = (float(x) for x in interval(differences, confidence))
    if -margin <= low and high <= margin:
        return Comparison(*names, mean, low, high, n, "TIES")
    if low <= 0 <= high:
        return Comparison(*names, mean, low, high, n, "INCONCLUSIVE")
    if (mean > 0) == (better == "higher"):
        return Comparison(*names, mean, low, high, n, "BEATS")
    return Comparison(names[1], names[0], -mean, -high, -low, n, "BEATS")


def compare_all(
    values: Mapping[str, Mapping[int, float]], *, confidence: float, margin: float, better: Better = "higher"
) -> list[Comparison]:
    """Every pair of arms on one endpoint, in the order of `values`, each over the seeds that the two share.

    Args:
        values: arm -> seed -> value of the endpoint.
        confidence, margin, better: as for `paired`.

    Raises:
        InputError: as for `paired`.
    """
    return [
        paired(values[a], values[b], names=(a, b), confidence=confidence, margin=margin, better=better)
        for a, b in itertools.combinations(values, 2)
    ]


def expected_false(count: int, confidence: float) -> float:
    """How many of `count` unadjusted intervals leave out 0 on average if no arm truly differs from another.

    By linearity of expectation it holds although pairs share runs and are not independent. It is an upper bound on
    the expected number of false `BEATS`, as some of these intervals lie within the margin and are ties.

    Args:
        count: number of pairs times number of endpoints looked at.
        confidence: nominal coverage of each interval.
    """
    return count * (1 - confidence)


def _check(confidence: float, margin: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"evaluation.confidence is {confidence}, expected a number between 0 and 1, both excluded")
    if not 0 <= margin < float("inf"):
        raise InputError(f"evaluation.margin is {margin}, expected a finite number of at least 0")
