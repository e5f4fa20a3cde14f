"""The full law in sizes and tokens: recovered, covered, and simplified where runs are few."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import optimize

from kdjax.forecast import PilotRun, fit
from kdjax.forecast.fit import Better
from kdjax.forecast.surface import Surface

SIZES = np.geomspace(1e6, 1e7, 3)
FLOPS = np.geomspace(1e13, 3e14, 4)
TRUTH = {"E": 1.5, "A": 400.0, "a": 0.35, "B": 900.0, "b": 0.38, "g": 0.8}


def law(parameters: ArrayLike, tokens: ArrayLike, truth: Mapping[str, float] = TRUTH) -> np.ndarray:
    """Compute planted values."""
    size = truth["A"] / np.asarray(parameters) ** truth["a"]
    data = truth["B"] / np.asarray(tokens) ** truth["b"]
    inner = size + data
    return truth["E"] + inner ** truth["g"]


def pilot(
    rng: np.random.Generator,
    *,
    sizes: np.ndarray = SIZES,
    flops: np.ndarray = FLOPS,
    noise: float = 0.005,
    truth: Mapping[str, float] = TRUTH,
) -> list[PilotRun]:
    """Draw runs of three seeds at every size and budget."""
    runs = []
    for seed in range(3):
        shift = noise * rng.normal()
        for size in sizes:
            for budget in flops:
                tokens = budget / (6 * size)
                value = law(size, tokens, truth) + shift + noise * rng.normal()
                runs.append(
                    PilotRun("scratch", seed, float(budget), float(size), tokens, math.inf, value)
                )
    return runs


def test_solve_reaches_scipys_sum_of_squares() -> None:
    rng = np.random.default_rng(0)
    sizes, tokens = np.reshape(np.meshgrid(SIZES, np.geomspace(1e6, 1e8, 4)), (2, -1))
    for outer, truth in ((False, {**TRUTH, "g": 1.0}), (True, TRUTH)):
        model = Surface(sizes, tokens, 0.0, outer)
        y = law(sizes, tokens, truth) + 0.01 * rng.normal(size=len(sizes))
        solution = model.solve(y)
        start = np.asarray(solution) * 1.05
        low = np.full(model.size, -30.0)
        high = np.full(model.size, 30.0)
        low[0] = 0.0
        best = optimize.least_squares(
            lambda theta, model=model, y=y: model.values(theta) - y,
            start,
            bounds=(low, high),
            xtol=1e-12,
            ftol=1e-12,
        )
        assert ((model.values(solution) - y) ** 2).sum() <= 2 * best.cost * (1 + 1e-3)


def test_planted_parameters_and_predictions_are_covered() -> None:
    fitted = fit(pilot(np.random.default_rng(1)), draws=300).arms["scratch"]
    assert fitted.formula == "E + (A/N^a + B/D'^b)^g"
    assert "12 different points" in fitted.reason
    for name, truth in TRUTH.items():
        assert fitted.parameters[name].low < truth < fitted.parameters[name].high
    ahead = fitted.predict([3e6, 3e7], 1e9)
    assert ahead.mean.shape == (2,)
    assert (ahead.low < law(np.array([3e6, 3e7]), 1e9)).all()
    assert (law(np.array([3e6, 3e7]), 1e9) < ahead.high).all()


def test_few_points_are_fitted_without_outer_exponent() -> None:
    truth = {**TRUTH, "g": 1.0}
    fitted = fit(pilot(np.random.default_rng(2), flops=FLOPS[:3], truth=truth), draws=200).arms[
        "scratch"
    ]
    assert fitted.formula == "E + (A/N^a + B/D'^b)"
    assert "too few for the exponent g" in fitted.reason
    assert "g" not in fitted.parameters
    assert fitted.parameters["b"].low < 0.38 < fitted.parameters["b"].high


@pytest.mark.parametrize(
    ("studies", "least", "most"),
    # One standard error is 9 points of 20 studies, and 5 of 60.
    [(20, 0.55, 1.0), pytest.param(60, 0.70, 0.97, marks=pytest.mark.exhaustive)],
)
def test_predictions_cover_at_nominal_rate(studies: int, least: float, most: float) -> None:
    ahead = 1e15 / 6e7
    inside = []
    for study in range(studies):
        runs = pilot(np.random.default_rng(100 + study), noise=0.01)
        fitted = fit(runs, confidence=0.8, draws=100, seed=study).arms["scratch"]
        prediction = fitted.predict(1e7, ahead)
        inside.append(prediction.low[0] <= law(1e7, ahead) <= prediction.high[0])
    assert least <= np.mean(inside) <= most


@pytest.mark.parametrize(("better", "sign", "start"), [("lower", 1, "E +"), ("higher", -1, "E -")])
def test_scores_are_fitted_with_opposite_sign(better: Better, sign: int, start: str) -> None:
    runs = pilot(np.random.default_rng(3))
    turned = [
        PilotRun(r.arm, r.seed, r.flops, r.parameters, r.tokens, r.unique, sign * r.value)
        for r in runs
    ]
    fitted = fit(turned, better=better, best=0.0, draws=100).arms["scratch"]
    assert sign * fitted.predict(1e7, 1e8).mean[0] == pytest.approx(law(1e7, 1e8), abs=0.03)
    assert fitted.formula.startswith(start)
