"""The bootstrap behind every interval: noise with the runs' own spread, shared between arms, and
refits to it.

The seed is the unit that repeats. A run's noise has two parts: a shift that its seed gives to all
budgets, and what is left. Both are drawn as normal with the covariance over arms that the residuals
show, so runs of one seed and budget stay paired between arms and a difference of arms keeps what
pairing gains. Each draw is then stretched by
sqrt(df / chi2(df)), one stretch for each part: in a linear law this makes the draws Student's t
with the degrees of freedom that the few residuals have, and the percentile interval the exact t
interval, where resampled residuals would be too narrow by sqrt(df / n) and in the tails. The law is
refitted to every draw, so its bends and bounds are in the interval. (Davison and Hinkley 1997,
sections 2.2 and 6.2; Efron and Tibshirani 1993, chapter 9.)

Shifts of seeds rest on seeds - 1 degrees of freedom, residuals on runs - parameters - (seeds - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from kdjax.forecast.robust import Model, RobustFit, degrees_of_freedom

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of every arm, draw r of one arm belonging with draw r of every other.

    Attributes:
        theta: per arm `[..., draws, size]`: refitted parameters.
        fresh: per arm `[..., draws]`: noise of one more run of a seed that is in the study.
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
    models: Sequence[Model],
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
        models, fits: per arm, the law and its robust fit to data sets `[..., n]`.
        seeds: per arm `[n]`: index of the seed of each run among the arm's own.
        cells: per arm `[n]`: index of the cell of each run. Runs of two arms in one cell are
            paired.
        study_seeds: per arm: index of the arm's seeds among the study's.
        cell_seed: `[cells]`: index of the seed of each cell among the study's.
        same_seeds: whether the question is about these very seeds rather than about seeds at large;
            their shifts are then part of the answer and not noise.
    """
    lead = fits[0].theta.shape[:-1]
    arms = len(models)
    places = int(cell_seed.max()) + 1
    df = np.array(
        [degrees_of_freedom(m, s) for m, s in zip(models, seeds, strict=True)], np.float64
    )
    seed_df = np.array([len(s) - 1 for s in study_seeds], np.float64)
    residuals = np.zeros((*lead, arms, len(cell_seed)))
    shifts = np.zeros((*lead, arms, places))
    for a, fit in enumerate(fits):
        residuals[..., a, cells[a]] = fit.residuals / np.sqrt(df[a])
        shifts[..., a, study_seeds[a]] = fit.shifts / np.sqrt(max(seed_df[a], 1.0))
    noise = (
        rng.normal(size=(*lead, count, len(cell_seed) + 1, arms))
        @ _root(residuals)[..., None, :, :]
    )
    noise *= _stretch(rng, df, (*lead, count))[..., None, :]
    moves = rng.normal(size=(*lead, count, places, arms)) @ _root(shifts)[..., None, :, :]
    moves *= _stretch(rng, seed_df, (*lead, count))[..., None, :]
    theta = []
    fresh = []
    for a, (model, fit) in enumerate(zip(models, fits, strict=True)):
        error = noise[..., cells[a], a]
        if not same_seeds and seed_df[a] > 0:
            member = (seeds[a][:, None] == np.arange(len(study_seeds[a]))).astype(np.float64)
            # The spread of a seed's mean already holds what the residuals add to it.
            error = (
                error
                - (error @ member / member.sum(0)) @ member.T
                + moves[..., cell_seed[cells[a]], a]
            )
        theta.append(
            model.solve(model.values(fit.theta)[..., None, :] + error, near=fit.theta[..., None, :])
        )
        fresh.append(noise[..., -1, a])
    return Draws(theta, fresh, np.sqrt((residuals**2).sum(-1)), np.sqrt((shifts**2).sum(-1)))


def _root(parts: Array) -> Array:
    """Symmetric root of the covariance over arms `[..., arms, arms]`; the covariance may be
    singular."""
    values, vectors = np.linalg.eigh(parts @ np.swapaxes(parts, -1, -2))
    return np.asarray(
        (vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    )


def _stretch(rng: np.random.Generator, df: Array, shape: tuple[int, ...]) -> Array:
    """sqrt(df / chi2(df)) per arm, `[*shape, arms]`, all arms of a draw from one quantile so that
    their pairing stays.

    The quantiles of the draws (the last axis of `shape`) are stratified: heavy tails are then the
    same in every fit.
    """
    order = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    quantile = ((order + rng.uniform(size=shape)) / shape[-1])[..., None]
    # The inverse is most of the time here, and arms of one design have the same degrees of freedom.
    safe, arm = np.unique(np.maximum(df, 1.0), return_inverse=True)
    return np.asarray(np.sqrt(safe / (2 * gammaincinv(safe / 2, quantile)))[..., arm])
