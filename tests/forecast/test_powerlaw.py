"""The fit of one curve: against a general optimiser, at its bounds, and with a bad run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import optimize

from kdjax.forecast import robust
from kdjax.forecast.powerlaw import EXPONENTS, PowerLaw
from tests.forecast import planted

TOKENS = np.repeat(np.geomspace(1e7, 3e8, 4), 3)
SEED = np.tile(np.arange(3), 4)


def law(theta: Sequence[float] | np.ndarray, tokens: np.ndarray = TOKENS) -> np.ndarray:
    e, amplitude, k = theta
    return e + amplitude * (tokens / 1e7) ** -k


def test_noise_free_curve_is_recovered() -> None:
    model = PowerLaw(TOKENS, 0.0)
    actual = model.named(model.solve(law((2.0, 1.5, 0.35))))
    assert float(actual["E"]) == pytest.approx(2.0, abs=2e-3)
    assert float(actual["k"]) == pytest.approx(0.35, rel=2e-3)
    assert float(actual["K"]) == pytest.approx(1.5 * 1e7**0.35, rel=3e-2)


def test_solve_reaches_scipys_sum_of_squares() -> None:
    rng = np.random.default_rng(0)
    model = PowerLaw(TOKENS, 0.0)
    worse = []
    for _ in range(40):
        truth = rng.uniform(0.1, 3), rng.uniform(0.5, 3), rng.uniform(0.1, 1.2)
        y = law(truth) + rng.normal(size=12) * 0.05
        weights = rng.uniform(0.1, 1, 12)
        bounds = ([0, 0, EXPONENTS[0]], [np.inf, np.inf, EXPONENTS[-1]])
        best = min(
            optimize.least_squares(
                lambda p, y=y, w=weights: np.sqrt(w) * (law(p) - y),
                (1.0, 1.0, k),
                bounds=bounds,
                xtol=1e-12,
                ftol=1e-12,
            ).cost
            for k in (0.05, 0.3, 1.0)
        )
        mine = 0.5 * (weights * (model.values(model.solve(y, weights)) - y) ** 2).sum()
        worse.append(mine / best - 1)
    assert max(worse) < 1e-5


def test_solve_keeps_bounds_on_asymptote_and_slope() -> None:
    rng = np.random.default_rng(1)
    model = PowerLaw(TOKENS, 0.0)
    # A pure power law has E = 0, the bound; noise would put half the estimates below it.
    theta = model.solve(law((0.0, 3.0, 0.2)) + rng.normal(size=(500, 12)) * 0.02)
    named = model.named(theta)
    assert (named["E"] >= -1e-9).all()
    assert 0.3 < (named["E"] < 1e-6).mean() < 0.7
    # Values that rise with tokens are met by a flat curve, not by a negative K.
    theta = model.solve(law((2.0, 1.0, 0.3))[::-1])
    assert float(theta[1]) == 0
    assert float(theta[0]) == pytest.approx(law((2.0, 1.0, 0.3)).mean())


def test_batched_solve_equals_single_solves() -> None:
    rng = np.random.default_rng(2)
    y = law((2.0, 1.0, 0.3)) + rng.normal(size=(7, 5, 12)) * 0.05
    model = PowerLaw(TOKENS, 0.0)
    together = model.solve(y)
    for index in np.ndindex(7, 5):
        np.testing.assert_allclose(together[index], model.solve(y[index]), rtol=1e-9)


def errors_with_outlier(fit: Callable[[PowerLaw, np.ndarray], np.ndarray]) -> float:
    """Return the median error of 200 extrapolations, one run of each 15 standard deviations off."""
    rng = np.random.default_rng(3)
    truth = planted.truths(rng, 200, 1)
    noise = 0.02 * (truth.at(TOKENS)[:, 0, 0] - truth.at(TOKENS)[:, 0, -1])[:, None]
    y = truth.at(TOKENS)[:, 0] + noise * rng.normal(size=(200, 12))
    y[np.arange(200), rng.integers(0, 12, 200)] += 15 * noise[:, 0]
    ahead = np.array([1e9])
    model = PowerLaw(TOKENS, 0.0)
    theta = fit(model, y)
    errors = np.abs(model.at(theta, ahead, ahead)[:, 0] - truth.at(ahead)[:, 0, 0])
    return float(np.median(errors / noise[:, 0]))


def test_outlier_moves_robust_fit_little() -> None:
    plain = errors_with_outlier(lambda model, y: model.solve(y))
    robustly = errors_with_outlier(lambda model, y: robust.huber(model, y, SEED).theta)
    assert robustly < 2.5
    assert plain > 2 * robustly


def test_huber_separates_seed_shifts_from_curve() -> None:
    y = law((2.0, 1.0, 0.3)) + np.array([0.2, -0.3, 0.1])[SEED]
    solution = robust.huber(PowerLaw(TOKENS, 0.0), y, SEED)
    np.testing.assert_allclose(solution.shifts, [0.2, -0.3, 0.1], atol=1e-4)
    assert np.abs(solution.residuals).max() < 1e-3


def test_huber_residuals_estimate_noise() -> None:
    rng = np.random.default_rng(4)
    model = PowerLaw(TOKENS, 0.0)
    solution = robust.huber(model, law((2.0, 1.0, 0.3)) + 0.01 * rng.normal(size=(2000, 12)), SEED)
    freedom = robust.degrees_of_freedom(model, SEED)
    assert freedom == 12 - 3 - 2
    variance = (solution.residuals**2).sum(-1) / freedom
    assert np.sqrt(variance.mean()) == pytest.approx(0.01, rel=0.1)
