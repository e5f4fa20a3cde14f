"""Simulate studies whose truth is known, and count what their verdicts get wrong.

    python -m benchmarks.verdicts                    # the tables of docs/statistics.md
    python -m benchmarks.verdicts --studies 20000    # with less chance in them

A simulated study has four arms on five endpoints, the first arm the baseline and the first endpoint
the primary one: 30 comparisons, 3 of them confirmatory. P-values, families and intervals are those
of `kdjax.evaluation.statistics`, over all studies at once. Ties only take winners away, so margins
are 0 here. The same seed gives the same tables.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.evaluation.statistics import (
    adjust_families,
    estimate,
    holm,
    power,
    smallest_detectable,
)

Array = NDArray[np.float64]
Shape = tuple[int, int, int, int]
"""Studies, seeds, arms, endpoints."""
Draw = Callable[[np.random.Generator, Shape], Array]
"""Draws the values of studies, `[studies, seeds, arms, endpoints]`."""

ARMS = 4
ENDPOINTS = 5
ALPHA = 0.05
PAIRS = list(itertools.combinations(range(ARMS), 2))
SEED = 19


@dataclass(frozen=True)
class Scenario:
    """A kind of study whose arms are all the same, or differ in a known way.

    Attributes:
        name: what the table calls it.
        draw: function that draws the values of studies.
        floor: the smallest spread that is believed: 1 / rows for scores on rows.
    """

    name: str
    draw: Draw
    floor: float = 0.0


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw normal values, with a part that all arms of a seed share."""
    studies, seeds, _, endpoints = shape
    return rng.normal(size=(studies, seeds, 1, endpoints)) + rng.normal(size=shape)


def correlated(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw values of endpoints that say nearly the same of a run (correlation 0.9)."""
    shared = rng.normal(size=(*shape[:3], 1))
    return np.asarray(math.sqrt(0.9) * shared + math.sqrt(0.1) * rng.normal(size=shape))


def skewed(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw log-normal values (skewness 6.2)."""
    return rng.lognormal(size=shape)


def collapsed(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw runs of which one in five collapses, by 20 standard deviations on every endpoint."""
    is_bad = rng.random((*shape[:3], 1)) < 0.2
    return np.asarray(20.0 * is_bad + rng.normal(size=shape))


def accuracies(rows: int, right: float) -> Draw:
    """Return a function that draws accuracies on rows, each right with the same probability."""

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        return rng.binomial(rows, right, shape) / rows

    return draw


def unequal_spreads(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw normal values of equal means; an arm's spread is 1, 1/3, 1/10 or 1/30."""
    spreads = np.array([1.0, 1 / 3, 1 / 10, 1 / 30])
    return np.asarray(rng.normal(size=shape) * spreads[:, None])


def unequal_skews(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw values of equal means, log-normal in the baseline arm and normal in the others."""
    values = rng.normal(size=shape)
    skewed_values = rng.lognormal(size=(*shape[:2], 1, shape[3]))
    values[:, :, :1] = skewed_values - math.exp(0.5)
    return values


SAME = (
    Scenario("normal", normal),
    Scenario("skewed (log-normal)", skewed),
    Scenario("endpoints correlated 0.9", correlated),
    Scenario("one run in five collapses", collapsed),
    Scenario("accuracies on 200 rows", accuracies(200, 0.7), 1 / 200),
    Scenario("accuracies on 20 rows", accuracies(20, 0.7), 1 / 20),
    Scenario("accuracies on 10 rows, nearly all right", accuracies(10, 0.95), 1 / 10),
)
"""Studies whose arms are identically distributed: whatever they name is false."""
EQUAL_MEANS = (
    Scenario("unequal spreads (1 to 1/30)", unequal_spreads),
    Scenario("baseline skewed, others normal", unequal_skews),
)
"""Studies whose arms have equal means and differ otherwise."""


def p_values(values: Array, floor: float) -> tuple[Array, Array]:
    """Compute the p-values of every study's two families.

    Args:
        values: `[studies, seeds, arms, endpoints]`.
        floor: the smallest spread that is believed.

    Returns:
        `[studies, 3]` of the baseline arm's pairs on the first endpoint, and `[studies, 27]` of all
        other pairs and endpoints.
    """
    confirmatory: list[Array] = []
    secondary: list[Array] = []
    for endpoint, (a, b) in itertools.product(range(ENDPOINTS), PAIRS):
        differences = values[:, :, b, endpoint] - values[:, :, a, endpoint]
        p_value = estimate(differences, floor).p_value()
        if endpoint == 0 and a == 0:
            confirmatory.append(p_value)
        else:
            secondary.append(p_value)
    return np.stack(confirmatory, -1), np.stack(secondary, -1)


def false_winners(scenario: Scenario, studies: int, seeds: int) -> Mapping[str, float]:
    """Count studies that name a false winner anywhere.

    Args:
        scenario: kind of study; its arms do not differ.
        studies: number of studies.
        seeds: seeds of each.

    Returns:
        Share of studies, by way to decide: `unadjusted` intervals; Holm on the `primary` endpoint
        alone and all others unadjusted, as kdjax did before; and both `families`, of which the
        confirmatory one is `confirmatory`.
    """
    rng = np.random.default_rng([SEED, seeds])
    values = scenario.draw(rng, (studies, seeds, ARMS, ENDPOINTS))
    confirmatory, secondary = p_values(values, scenario.floor)
    first, second = adjust_families(confirmatory, secondary)
    is_first = (first <= ALPHA).any(-1)
    is_second = (second <= ALPHA).any(-1)
    raw_second = (secondary <= ALPHA).any(-1)
    return {
        "unadjusted": float(((confirmatory <= ALPHA).any(-1) | raw_second).mean()),
        "primary": float(((holm(confirmatory) <= ALPHA).any(-1) | raw_second).mean()),
        "confirmatory": float(is_first.mean()),
        "families": float((is_first | is_second).mean()),
    }


def coverage(scenario: Scenario, studies: int, seeds: int) -> float:
    """Compute how often the 95% interval of one pair's difference holds the true one, which is 0.

    Args:
        scenario: kind of study; its arms have equal means.
        studies: number of studies.
        seeds: seeds of each.
    """
    rng = np.random.default_rng([SEED, seeds])
    values = scenario.draw(rng, (studies, seeds, ARMS, ENDPOINTS))
    # All endpoints are alike; the last arm against the baseline arm differs most from it.
    differences = values[:, :, ARMS - 1] - values[:, :, 0]
    low, high = estimate(np.moveaxis(differences, 1, -1), scenario.floor).interval(1 - ALPHA)
    return float(((low <= 0) & (high >= 0)).mean())


def found(effect: float, studies: int, seeds: int) -> tuple[float, float, float]:
    """Compute how often an arm's planted effect is found on the primary endpoint.

    One arm differs from the baseline arm on every endpoint; the others do not.

    Args:
        effect: difference of the arm, in standard deviations of a paired difference.
        studies: number of studies.
        seeds: seeds of each.

    Returns:
        Share of studies: by the families; by Holm over all 30 comparisons as one family; and by
        Holm over the 3 confirmatory ones at all of alpha, as if nothing else were looked at.
    """
    rng = np.random.default_rng([SEED, seeds])
    values = normal(rng, (studies, seeds, ARMS, ENDPOINTS))
    values[:, :, 1] += effect * math.sqrt(2)
    confirmatory, secondary = p_values(values, 0.0)
    first, _ = adjust_families(confirmatory, secondary)
    together = holm(np.concatenate([confirmatory, secondary], -1))
    shares = [first[:, 0], together[:, 0], holm(confirmatory)[:, 0]]
    by_families, by_one, by_primary = [float((share <= ALPHA).mean()) for share in shares]
    return by_families, by_one, by_primary


def detectable_is_found(studies: int, seeds: int, tests: int) -> tuple[float, float]:
    """Compute how often the smallest detectable difference is found, which is to be 80%.

    Args:
        studies: number of simulated tests.
        seeds: seeds of each.
        tests: tests that share alpha, so that one has the level alpha / tests.

    Returns:
        The share found, and the power that is stated for it.
    """
    level = ALPHA / tests
    effect = smallest_detectable(1.0, seeds, level)
    rng = np.random.default_rng([SEED, seeds, tests])
    over_seeds = estimate(effect + rng.normal(size=(studies, seeds)))
    is_found = (over_seeds.p_value() <= level) & (over_seeds.mean > 0)
    return float(is_found.mean()), power(effect, 1.0, seeds, level)


def tables(studies: int) -> str:
    """Make the tables of docs/statistics.md.

    Args:
        studies: number of simulated studies for each row.
    """
    lines = [
        "| arms all the same | seeds | unadjusted | Holm on the primary endpoint alone "
        "| confirmatory | anywhere |",
        "|---|---|---|---|---|---|",
    ]
    for scenario, seeds in itertools.product(SAME, (3, 5)):
        rates = false_winners(scenario, studies, seeds)
        cells = " | ".join(f"{rate:.1%}" for rate in rates.values())
        lines.append(f"| {scenario.name} | {seeds} | {cells} |")

    lines += ["", "| equal means | seeds | anywhere, nominal 5% | coverage, nominal 95% |"]
    lines.append("|---|---|---|---|")
    for scenario, seeds in itertools.product((*EQUAL_MEANS, *SAME), (3, 5)):
        rates = false_winners(scenario, studies, seeds)
        covered = coverage(scenario, studies, seeds)
        lines.append(f"| {scenario.name} | {seeds} | {rates['families']:.1%} | {covered:.1%} |")

    lines += ["", "| planted effect | seeds | two families | one family of 30 | primary alone |"]
    lines.append("|---|---|---|---|---|")
    for seeds, effect in itertools.product((3, 5, 10), (1.0, 2.0, 4.0)):
        cells = " | ".join(f"{share:.0%}" for share in found(effect, studies, seeds))
        lines.append(f"| {effect:g} | {seeds} | {cells} |")

    lines += ["", "| seeds | tests | smallest detectable difference is found in | stated |"]
    lines.append("|---|---|---|---|")
    for seeds, tests in itertools.product((3, 5, 10), (1, 4, 30)):
        share, stated = detectable_is_found(studies, seeds, tests)
        lines.append(f"| {seeds} | {tests} | {share:.1%} | {stated:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=4000)
    print(tables(parser.parse_args().studies))


if __name__ == "__main__":
    main()
