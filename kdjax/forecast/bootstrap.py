"""The bootstrap behind every interval: noise like the runs' own, paired between arms, and refits.

The seed is the unit that repeats. A run's noise has two parts: a shift that its seed gives to all
budgets, and a residual. Both are drawn as normal with the covariance over arms that the residuals
show, so runs of one seed and budget stay paired between arms and a difference of arms keeps what
pairing gains. Each draw is then stretched by sqrt(df / chi2(df)), one stretch for each part: in a
linear law this makes the draws Student's t with the degrees of freedom that the few residuals have,
and the percentile interval the exact t interval, where resampled residuals would be too narrow by
sqrt(df / n) and in the tails. The law is refitted to every draw, so its bends and bounds are in the
interval. (Davison and Hinkley 1997, sections 2.2 and 6.2; Efron and Tibshirani 1993, chapter 9.)

Shifts of seeds rest on seeds - 1 degrees of freedom, residuals on runs - parameters - (seeds - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from kdjax.forecast.robust import Law, RobustFit, degrees_of_freedom

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class FittedArm:
    """An arm's law, fitted to its runs, and how they pair with those of other arms.

    Attributes:
        law: the law of the arm.
        fit: robust fit of the law to data sets `[..., n]`.
        seed: `[n]`: index of each run's seed among the arm's own seeds.
        cell: `[n]`: index of each run's cell. Runs of two arms in one cell are paired.
        study_seed: `[arm's seeds]`: index of each of its seeds among the study's seeds.
    """

    law: Law
    fit: RobustFit
    seed: Index
    cell: Index
    study_seed: Index


@dataclass(frozen=True)
class ArmDraws:
    """Bootstrap draws of an arm, draw r belonging with draw r of every other arm.

    Attributes:
        theta: `[..., draws, size]`: refitted parameters.
        fresh: `[..., draws]`: noise of one more run of a seed that is in the study.
        residual_sd: `[...]`: standard deviation of a run within its seed.
        shift_sd: `[...]`: standard deviation of a seed's mean; 0 where there is one seed.
    """

    theta: Array
    fresh: Array
    residual_sd: Array
    shift_sd: Array


def joint(
    rng: np.random.Generator,
    count: int,
    arms: Sequence[FittedArm],
    cell_seed: Index,
    *,
    same_seeds: bool = False,
) -> list[ArmDraws]:
    """Draw noise for all arms together and refit every arm to it.

    Args:
        rng: the only source of randomness.
        count: number of draws.
        arms: the arms of the study, each with its law fitted.
        cell_seed: `[cells]`: index of each cell's seed among the study's seeds.
        same_seeds: whether the question is about these very seeds rather than about seeds at large;
            their shifts are then part of the answer and not noise.

    Returns:
        The draws of each arm, in their order.
    """
    batch_shape = arms[0].fit.theta.shape[:-1]
    seed_count = int(cell_seed.max()) + 1
    df = np.array([degrees_of_freedom(arm.law, arm.seed) for arm in arms], np.float64)
    seed_df = np.array([len(arm.study_seed) - 1 for arm in arms], np.float64)

    # Residuals and shifts of all arms on the study's cells and seeds, scaled so that the sum of
    # their products is a covariance.
    residuals = np.zeros((*batch_shape, len(arms), len(cell_seed)))
    shifts = np.zeros((*batch_shape, len(arms), seed_count))
    for a, arm in enumerate(arms):
        residuals[..., a, arm.cell] = arm.fit.residuals / np.sqrt(df[a])
        shifts[..., a, arm.study_seed] = arm.fit.shifts / np.sqrt(max(seed_df[a], 1.0))
    residual_sd = np.sqrt((residuals**2).sum(-1))
    shift_sd = np.sqrt((shifts**2).sum(-1))

    # Draws of both kinds of noise: a residual for each cell and for one new run, a shift for each
    # seed.
    noise = (
        rng.normal(size=(*batch_shape, count, len(cell_seed) + 1, len(arms)))
        @ _covariance_root(residuals)[..., None, :, :]
    )
    noise *= stretch_factors(rng, df, (*batch_shape, count))[..., None, :]
    moves = (
        rng.normal(size=(*batch_shape, count, seed_count, len(arms)))
        @ _covariance_root(shifts)[..., None, :, :]
    )
    moves *= stretch_factors(rng, seed_df, (*batch_shape, count))[..., None, :]

    # Each law is refitted to its own values with the drawn noise.
    draws = []
    for a, arm in enumerate(arms):
        theta = arm.fit.theta[..., None, :]
        error = noise[..., arm.cell, a]
        if not same_seeds and seed_df[a] > 0:
            member = (arm.seed[:, None] == np.arange(len(arm.study_seed))).astype(np.float64)
            # The drawn shift takes the place of the seed's mean residual, whose spread it already
            # holds.
            seed_means = (error @ member / member.sum(0)) @ member.T
            error = error - seed_means + moves[..., cell_seed[arm.cell], a]
        values = arm.law.values(arm.fit.theta)[..., None, :] + error
        refitted = arm.law.solve(values, near=theta)
        fresh = noise[..., -1, a]
        draws.append(ArmDraws(refitted, fresh, residual_sd[..., a], shift_sd[..., a]))
    return draws


def _covariance_root(rows: Array) -> Array:
    """Compute the symmetric root of the covariance of `rows`, which may be singular.

    Args:
        rows: `[..., arms, n]`: scaled residuals or shifts.

    Returns:
        `[..., arms, arms]`: the root of the sum of products.
    """
    values, vectors = np.linalg.eigh(rows @ np.swapaxes(rows, -1, -2))
    # Rounding may leave an eigenvalue a little below 0.
    scaled = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    return np.asarray(scaled @ np.swapaxes(vectors, -1, -2))


def stretch_factors(rng: np.random.Generator, df: Array, shape: tuple[int, ...]) -> Array:
    """Draw sqrt(df / chi2(df)) for each arm, `[*shape, arms]`.

    All arms of a draw have one quantile, so that their pairing stays. The quantiles of the draws
    (the last axis of `shape`) are stratified: heavy tails are then the same in every fit.

    Args:
        rng: source of random numbers.
        df: degrees of freedom of each arm, `[arms]`.
        shape: leading axes of the draws.
    """
    order = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    quantile = ((order + rng.uniform(size=shape)) / shape[-1])[..., None]
    # The inverse is most of the time here, and arms of one design have the same degrees of freedom.
    safe, arm = np.unique(np.maximum(df, 1.0), return_inverse=True)
    return np.asarray(np.sqrt(safe / (2 * gammaincinv(safe / 2, quantile)))[..., arm])
