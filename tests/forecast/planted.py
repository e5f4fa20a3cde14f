"""Simulated studies with a planted law: many at once, so that coverage can be counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdjax.forecast import bootstrap, robust
from kdjax.forecast.powerlaw import PowerLaw

SMALLEST = 1e7  # tokens of the first budget


@dataclass(frozen=True)
class Truth:
    """Planted laws of many studies, `[studies, arms]`: y = e + amplitude * (D / SMALLEST)**-k."""

    e: np.ndarray
    amplitude: np.ndarray
    k: np.ndarray

    def at(self, tokens: np.ndarray) -> np.ndarray:
        """Compute `[studies, arms, m]` values at `[arms, m]` tokens, or `[m]` for all arms."""
        return (
            self.e[..., None]
            + self.amplitude[..., None] * (np.asarray(tokens) / SMALLEST) ** -self.k[..., None]
        )


def truths(rng: np.random.Generator, studies: int, arms: int = 2) -> Truth:
    """Draw laws with 2 to 6 nats at the first budget, 20% to 90% of it floor, k in 0.1 to 0.8."""
    start = rng.uniform(2, 6, (studies, arms))
    share = rng.uniform(0.2, 0.9, (studies, arms))
    return Truth(start * share, start * (1 - share), rng.uniform(0.1, 0.8, (studies, arms)))


def observe(
    rng: np.random.Generator,
    truth: Truth,
    tokens: np.ndarray,
    seeds: int,
    noise: np.ndarray,
    shift: np.ndarray,
    shared: float = 0.5,
) -> np.ndarray:
    """Draw values `[studies, arms, budgets, seeds]`, paired by seed and by cell.

    Seeds shift all budgets and arms, and runs of one cell share noise. `noise` and `shift` are
    standard deviations as shares of what an arm improves over the budgets, `[studies]`; `shared` is
    the share of each variance that the arms have in common.
    """
    law = truth.at(tokens)
    improvement = (law[..., 0] - law[..., -1])[:, :1, None, None]
    studies, arms, budgets = law.shape
    independent = np.sqrt(1 - shared)
    common = np.sqrt(shared)
    shape = (studies, arms, 1, seeds)
    shifts = independent * rng.normal(size=shape) + common * rng.normal(size=(studies, 1, 1, seeds))
    shape = (studies, arms, budgets, seeds)
    residuals = independent * rng.normal(size=shape) + common * rng.normal(
        size=(studies, 1, budgets, seeds)
    )
    residuals *= improvement * np.reshape(noise, (-1, 1, 1, 1))
    shifts *= improvement * np.reshape(shift, (-1, 1, 1, 1))
    return law[..., None] + residuals + shifts


def refit(
    rng: np.random.Generator,
    values: np.ndarray,
    tokens: np.ndarray,
    draws: int,
    block: int = 100,
    same_seeds: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], list[PowerLaw]]:
    """Fit every study and draw from its bootstrap.

    Returns:
        For each arm: fits `[studies, 3]`, draws `[studies, draws, 3]`, the noise of fresh runs, and
        the law.
    """
    studies, arms, budgets, seeds = values.shape
    seed = np.tile(np.arange(seeds), budgets)
    by_arm = np.broadcast_to(tokens, (arms, budgets))
    laws = [PowerLaw(np.repeat(row, seeds), 0.0) for row in by_arm]
    points: list[list[np.ndarray]] = [[] for _ in laws]
    sampled: list[list[np.ndarray]] = [[] for _ in laws]
    fresh: list[list[np.ndarray]] = [[] for _ in laws]
    for start in range(0, studies, block):
        part = values[start : start + block].reshape(-1, arms, budgets * seeds)
        fitted = []
        for a, law in enumerate(laws):
            fit = robust.huber(law, part[:, a], seed)
            cell = np.arange(len(seed))
            fitted.append(bootstrap.FittedArm(law, fit, seed, cell, np.arange(seeds)))
        refitted = bootstrap.joint(rng, draws, fitted, seed, same_seeds=same_seeds)
        for a in range(arms):
            points[a].append(fitted[a].fit.theta)
            sampled[a].append(refitted[a].theta)
            fresh[a].append(refitted[a].fresh)
    return (
        list(map(np.concatenate, points)),
        list(map(np.concatenate, sampled)),
        list(map(np.concatenate, fresh)),
        laws,
    )


def covered(draws: np.ndarray, truth: np.ndarray, confidence: float) -> np.ndarray:
    """Return whether the percentile interval of `[studies, draws]` holds `[studies]`."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    # Rounding at a bound is no miss.
    slack = 1e-9 * (1 + np.abs(truth))
    return (low - slack <= truth) & (truth <= high + slack)
