"""Simulated studies with a planted law: many at once, so that coverage can be counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdjax.forecast import bootstrap, robust
from kdjax.forecast.powerlaw import PowerLaw

SMALLEST = 1e7  # tokens of the first budget


@dataclass(frozen=True)
class Truth:
    """Planted arms of many studies, `[studies, arms]` each: y = e + amplitude * (D /
    SMALLEST)**-k."""

    e: np.ndarray
    amplitude: np.ndarray
    k: np.ndarray

    def at(self, tokens):
        """Values `[studies, arms, m]` at `[arms, m]` tokens, or `[m]` for all arms."""
        return (
            self.e[..., None]
            + self.amplitude[..., None] * (np.asarray(tokens) / SMALLEST) ** -self.k[..., None]
        )


def truths(rng, studies, arms=2):
    """Losses of 2 to 6 nats at the first budget, of which 20% to 90% can never be learnt, and k
    from 0.1 to 0.8."""
    start = rng.uniform(2, 6, (studies, arms))
    share = rng.uniform(0.2, 0.9, (studies, arms))
    return Truth(start * share, start * (1 - share), rng.uniform(0.1, 0.8, (studies, arms)))


def observe(rng, truth, tokens, seeds, noise, shift, shared=0.5):
    """Values `[studies, arms, budgets, seeds]`: seeds shift all budgets and arms, and runs of one
    cell share noise.

    `noise` and `shift` are standard deviations as shares of what an arm improves over the budgets,
    `[studies]`; `shared` is the share of each variance that the arms have in common.
    """
    law = truth.at(tokens)
    improvement = (law[..., 0] - law[..., -1])[:, :1, None, None]
    (studies, arms, budgets), own, common = law.shape, np.sqrt(1 - shared), np.sqrt(shared)
    shape = (studies, arms, 1, seeds)
    shifts = own * rng.normal(size=shape) + common * rng.normal(size=(studies, 1, 1, seeds))
    shape = (studies, arms, budgets, seeds)
    residuals = own * rng.normal(size=shape) + common * rng.normal(
        size=(studies, 1, budgets, seeds)
    )
    scale = (
        improvement * np.reshape(noise, (-1, 1, 1, 1)),
        improvement * np.reshape(shift, (-1, 1, 1, 1)),
    )
    return law[..., None] + scale[0] * residuals + scale[1] * shifts


def refit(rng, values, tokens, draws, block=100, same_seeds=False):
    """Robust fits and joint draws of every study: `[studies, 3]` and `[studies, draws, 3]` per arm,
    and the models."""
    studies, arms, budgets, seeds = values.shape
    seed = np.tile(np.arange(seeds), budgets)
    models = [
        PowerLaw(np.repeat(np.broadcast_to(tokens, (arms, budgets))[a], seeds), 0.0)
        for a in range(arms)
    ]
    points = [[] for _ in models]
    sampled = [[] for _ in models]
    fresh = [[] for _ in models]
    for start in range(0, studies, block):
        part = values[start : start + block].reshape(-1, arms, budgets * seeds)
        fits = [robust.huber(model, part[:, a], seed) for a, model in enumerate(models)]
        cells = [np.arange(len(seed))] * arms
        every = [np.arange(seeds)] * arms
        found = bootstrap.joint(
            rng, draws, models, fits, [seed] * arms, cells, every, seed, same_seeds=same_seeds
        )
        for a in range(arms):
            points[a].append(fits[a].theta)
            sampled[a].append(found.theta[a])
            fresh[a].append(found.fresh[a])
    return (*([np.concatenate(x) for x in group] for group in (points, sampled, fresh)), models)


def covered(draws, truth, confidence):
    """Whether the percentile interval of `[studies, draws]` holds `[studies]`, up to rounding at a
    bound."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    slack = 1e-9 * (1 + np.abs(truth))
    return (low - slack <= truth) & (truth <= high + slack)
