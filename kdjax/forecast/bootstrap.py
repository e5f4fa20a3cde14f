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
class Draws:
    """Bootstrap draws of every arm, draw r of one arm belonging with draw r of every other.

    Attributes:
        theta: refitted parameters of each arm, `[..., draws, size]`.
        fresh: noise of one more run of a seed that is in the study, for each arm `[..., draws]`.
        residual_sd: `[..., arms]`: standard deviation of a run within its seed.
        shift_sd: `[..., arms]`: standard deviation of a seed's mean; 0 where there is one seed.
    """

    theta: list[Array]
    fresh: list[Array]
    residual_sd: Array
    shift_sd: Array


def joint(
    rng: np.random.Generator,
    count: int,
    laws: Sequence[Law],
    fits: Sequence[RobustFit],
    seeds: Sequence[Index],
    cells: Sequence[Index],
    study_seeds: Sequence[Index],
    cell_seed: Index,
    *,
    same_seeds: bool = False,
) -> Draws:
    """Draw noise for all arms together and refit every arm to it.

    Args:
        rng: the only source of randomness.
        count: number of draws.
        laws: the law of each arm.
        fits: robust fit of each arm's law to data sets `[..., n]`.
        seeds: index of each run's seed among the arm's own seeds, for each arm `[n]`.
        cells: index of each run's cell, for each arm `[n]`. Runs of two arms in one cell are
            paired.
        study_seeds: indices of each arm's seeds among the study's seeds.
        cell_seed: `[cells]`: index of each cell's seed among the study's seeds.
        same_seeds: whether the question is about these very seeds rather than about seeds at large;
            their shifts are then part of the answer and not noise.
    """
    batch_shape = fits[0].theta.shape[:-1]
    arms = len(laws)
    seed_count = int(cell_seed.max()) + 1
    df = np.array(list(map(degrees_of_freedom, laws, seeds)), np.float64)
    seed_df = np.array([len(indices) - 1 for indices in study_seeds], np.float64)

    # Residuals and shifts of all arms on the study's cells and seeds, scaled so that the sum of
    # their products is a covariance.
    residuals = np.zeros((*batch_shape, arms, len(cell_seed)))
    shifts = np.zeros((*batch_shape, arms, seed_count))
    for a, fit in enumerate(fits):
        residuals[..., a, cells[a]] = fit.residuals / np.sqrt(df[a])
        shifts[..., a, study_seeds[a]] = fit.shifts / np.sqrt(max(seed_df[a], 1.0))

    # Draws of both kinds of noise: a residual for each cell and for one new run, a shift for each
    # seed.
    noise = (
        rng.normal(size=(*batch_shape, count, len(cell_seed) + 1, arms))
        @ _covariance_root(residuals)[..., None, :, :]
    )
    noise *= stretch_factors(rng, df, (*batch_shape, count))[..., None, :]
    moves = (
        rng.normal(size=(*batch_shape, count, seed_count, arms))
        @ _covariance_root(shifts)[..., None, :, :]
    )
    moves *= stretch_factors(rng, seed_df, (*batch_shape, count))[..., None, :]

    # Each law is refitted to its own values with the drawn noise.
    theta = []
    fresh = []
    for a, (law, fit) in enumerate(zip(laws, fits, strict=True)):
        error = noise[..., cells[a], a]
        if not same_seeds and seed_df[a] > 0:
            member = (seeds[a][:, None] == np.arange(len(study_seeds[a]))).astype(np.float64)
            # The drawn shift takes the place of the seed's mean residual, whose spread it already
            # holds.
            seed_means = (error @ member / member.sum(0)) @ member.T
            error = error - seed_means + moves[..., cell_seed[cells[a]], a]
        values = law.values(fit.theta)[..., None, :] + error
        theta.append(law.solve(values, near=fit.theta[..., None, :]))
        fresh.append(noise[..., -1, a])
    return Draws(theta, fresh, np.sqrt((residuals**2).sum(-1)), np.sqrt((shifts**2).sum(-1)))


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
    """
    order = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    quantile = ((order + rng.uniform(size=shape)) / shape[-1])[..., None]
    # The inverse is most of the time here, and arms of one design have the same degrees of freedom.
    safe, arm = np.unique(np.maximum(df, 1.0), return_inverse=True)
    return np.asarray(np.sqrt(safe / (2 * gammaincinv(safe / 2, quantile)))[..., arm])
