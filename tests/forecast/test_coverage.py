"""Intervals hold the planted truth at their nominal rate, over thousands of simulated studies."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from kdjax.forecast import bootstrap
from tests.forecast import planted

EXHAUSTIVE = pytest.mark.exhaustive
NOMINAL = 0.90
STUDIES = 500
DRAWS = 250
# Budgets, seeds, decades
DESIGNS = [
    (4, 3, 1.5),
    (4, 5, 1.5),
    (5, 3, 1.5),
    (5, 4, 1.5),
    (6, 3, 2.0),
    (6, 5, 2.0),
]
PARAMETERS = ("E", "K", "k")
AHEAD = ("arm x3", "arm x10", "difference x3", "difference x10")

SOME = DESIGNS[::2]
# 1500 studies in all: one standard error is 0.77 points, so the lower end is 2.6 of them below
# nominal.
POOLED = (0.88, 0.96)
# One design has 500 studies, a standard error of 1.3 points.
SINGLE = (0.85, 0.98)


def hits(
    budgets: int, seeds: int, decades: float, studies: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return for each quantity whether a study's interval holds the truth, and interval widths."""
    truth = planted.truths(rng, studies)
    # The second arm pays more for a token, so it sees fewer of them at the same budgets.
    tokens = planted.SMALLEST * np.geomspace(1, 10**decades, budgets) * np.array([[1.0], [0.6]])
    noise = 10 ** rng.uniform(-2.3, -1, studies)
    values = planted.observe(
        rng, truth, tokens, seeds, noise, noise * rng.choice([0, 0.5, 2.0], studies)
    )
    _, draws, _, models = planted.refit(rng, values, tokens, DRAWS)
    named = models[0].named(draws[0])
    planted_values = {
        "E": truth.e[:, 0],
        "K": truth.amplitude[:, 0] * planted.SMALLEST ** truth.k[:, 0],
    }
    planted_values["k"] = truth.k[:, 0]
    out = {name: planted.covered(named[name], planted_values[name], NOMINAL) for name in PARAMETERS}
    for factor in (3, 10):
        ahead = tokens[:, -1:] * factor
        real = truth.at(ahead)[..., 0]
        predicted = models[0].at(draws[0], ahead[0], ahead[0])[..., 0]
        two = models[1].at(draws[1], ahead[1], ahead[1])[..., 0]
        out[f"arm x{factor}"] = planted.covered(predicted, real[:, 0], NOMINAL)
        out[f"difference x{factor}"] = planted.covered(
            predicted - two, real[:, 0] - real[:, 1], NOMINAL
        )
        improvement = truth.at(tokens)[:, 0, 0] - truth.at(tokens)[:, 0, -1]
        out[f"width x{factor}"] = np.diff(np.quantile(predicted, [0.05, 0.95], axis=1), axis=0)[
            0
        ] / (noise * improvement)
    return out


@functools.cache
def hits_of_design(design: tuple[int, int, float]) -> dict[str, np.ndarray]:
    return hits(*design, STUDIES, np.random.default_rng([11, *np.array(design).astype(int)]))


@pytest.mark.parametrize(
    "design",
    [design if design in SOME else pytest.param(design, marks=EXHAUSTIVE) for design in DESIGNS],
)
def test_intervals_of_one_design_cover_at_nominal_rate(design: tuple[int, int, float]) -> None:
    low, high = SINGLE
    for quantity in PARAMETERS + AHEAD:
        assert low <= hits_of_design(design)[quantity].mean() <= high, quantity


@pytest.mark.parametrize("quantity", PARAMETERS + AHEAD)
@pytest.mark.parametrize(
    "designs", [pytest.param(SOME, id="some"), pytest.param(DESIGNS, id="all", marks=EXHAUSTIVE)]
)
def test_intervals_of_all_designs_cover_at_nominal_rate(
    quantity: str, designs: list[tuple[int, int, float]]
) -> None:
    low, high = POOLED
    assert low <= np.mean([hits_of_design(design)[quantity].mean() for design in designs]) <= high


def test_intervals_are_not_wider_than_needed() -> None:
    # An ideal fit of 4 budgets by 3 seeds has, three budgets beyond, an interval some four standard
    # deviations wide.
    for factor, widest in ((3, 7.0), (10, 10.0)):
        widths = hits_of_design(DESIGNS[0])[f"width x{factor}"]
        assert np.isfinite(widths).all()
        assert np.median(widths) < widest


def test_bootstrap_without_student_tails_covers_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bootstrap, "stretch_factors", lambda rng, df, shape: np.ones((*shape, len(df)))
    )
    rates = hits(4, 3, 1.5, STUDIES, np.random.default_rng(11))
    assert all(rates[quantity].mean() < POOLED[0] for quantity in ("k", *AHEAD))


def test_paired_noise_narrows_differences_and_keeps_coverage() -> None:
    rng = np.random.default_rng(12)
    tokens = planted.SMALLEST * np.geomspace(1, 30, 4)
    covered = {}
    widths = {}
    for shared in (0.0, 0.95):
        truth = planted.truths(rng, 300)
        truth = planted.Truth(
            truth.e, np.repeat(truth.amplitude[:, :1], 2, 1), np.repeat(truth.k[:, :1], 2, 1)
        )
        noise = np.full(300, 0.03)
        values = planted.observe(rng, truth, tokens, 3, noise, noise, shared)
        _, draws, _, models = planted.refit(rng, values, tokens, DRAWS)
        ahead = tokens[-1:] * 3
        predicted = models[0].at(draws[0], ahead, ahead)[..., 0]
        two = models[1].at(draws[1], ahead, ahead)[..., 0]
        real = truth.at(ahead)[..., 0]
        covered[shared] = planted.covered(predicted - two, real[:, 0] - real[:, 1], NOMINAL).mean()
        improvement = truth.at(tokens)[:, 0, 0] - truth.at(tokens)[:, 0, -1]
        widths[shared] = np.median(
            np.diff(np.quantile(predicted - two, [0.05, 0.95], axis=1), axis=0)[0] / improvement
        )
    assert min(covered.values()) > 0.86
    assert widths[0.95] < 0.6 * widths[0.0]


def test_plateau_gets_finite_interval_that_covers() -> None:
    rng = np.random.default_rng(13)
    truth = planted.truths(rng, 500, 1)
    truth = planted.Truth(truth.e, 0 * truth.amplitude, truth.k)
    tokens = planted.SMALLEST * np.geomspace(1, 30, 4)
    values = truth.at(tokens)[..., None] + 0.02 * rng.normal(size=(500, 1, 4, 3))
    _, draws, _, models = planted.refit(rng, values, tokens, DRAWS)
    (model,) = models
    ahead = tokens[-1:] * 10
    predicted = model.at(draws[0], ahead, ahead)[..., 0]
    assert 0.85 < planted.covered(predicted, truth.e[:, 0], NOMINAL).mean() < 0.97
    assert np.median(np.diff(np.quantile(predicted, [0.05, 0.95], axis=1), axis=0)) < 0.2
    # The exponent of nothing is not known: its interval spans most of what is allowed.
    low, high = np.quantile(model.named(draws[0])["k"], [0.05, 0.95], axis=1)
    assert np.median(high / low) > 20


@pytest.mark.parametrize(
    "noise_kind",
    ["an outlier", "noise that shrinks with budget", "heavy tails", "seeds that differ in slope"],
)
def test_intervals_cover_under_other_noise(noise_kind: str) -> None:
    rng = np.random.default_rng(14)
    studies = 400
    tokens = planted.SMALLEST * np.geomspace(1, 30, 4)
    truth = planted.truths(rng, studies, 1)
    level = np.full(studies, 0.02)
    law = truth.at(tokens)[..., None]
    improvement = law[:, :, :1] - law[:, :, -1:]
    values = planted.observe(rng, truth, tokens, 3, level, level)
    if noise_kind == "an outlier":
        bad = np.arange(studies), 0, rng.integers(0, 4, studies), rng.integers(0, 3, studies)
        values[bad] += 0.3 * improvement[:, 0, 0, 0]
    elif noise_kind == "noise that shrinks with budget":
        values = law + (values - law) * np.linspace(2, 0.5, 4)[:, None]
    elif noise_kind == "heavy tails":
        values = law + improvement * 0.02 * rng.standard_t(3, size=(studies, 1, 4, 3))
    else:
        values = values + improvement * np.linspace(-1, 1, 4)[:, None] * 0.02 * rng.normal(
            size=(studies, 1, 1, 3)
        )
    _, draws, _, models = planted.refit(rng, values, tokens, DRAWS)
    (model,) = models
    ahead = tokens[-1:] * 3
    covered = planted.covered(
        model.at(draws[0], ahead, ahead)[..., 0], truth.at(ahead)[:, 0, 0], NOMINAL
    )
    assert covered.mean() > 0.86


def test_held_out_budget_is_covered_at_nominal_rate() -> None:
    rng = np.random.default_rng(15)
    studies = 800
    seeds = 3
    tokens = planted.SMALLEST * np.geomspace(1, 30, 5)
    truth = planted.truths(rng, studies)
    noise = 10 ** rng.uniform(-2.3, -1, studies)
    values = planted.observe(rng, truth, tokens, seeds, noise, 2 * noise)
    _, draws, fresh, models = planted.refit(
        rng, values[:, :, :-1], tokens[:-1], DRAWS, same_seeds=True
    )
    held = tokens[-1:]
    reached = values[:, :, -1].mean(-1)
    guess = [
        model.at(theta, held, held)[..., 0] + new / np.sqrt(seeds)
        for model, theta, new in zip(models, draws, fresh, strict=True)
    ]
    assert 0.87 < planted.covered(guess[0], reached[:, 0], NOMINAL).mean() < 0.96
    gap = planted.covered(guess[0] - guess[1], reached[:, 0] - reached[:, 1], NOMINAL).mean()
    assert 0.87 < gap < 0.96
