"""Fits of whole studies: forms, parameters, predictions, warnings and refusals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kdjax.errors import InputError
from kdjax.forecast import Fits, PilotRun, Point, effective_tokens, fit
from tests.forecast import pilots


def change(run: PilotRun, **fields: Any) -> PilotRun:
    return dataclasses.replace(run, **fields)


STUDIES = 20
MOST_MISSES = int(stats.binom.isf(1e-4, STUDIES, 0.05))
"""Misses in 20 studies that intervals of 95% exceed once in 10,000 times."""


@pytest.fixture(scope="module")
def planted() -> list[Fits]:
    """Fit studies whose noise is drawn anew; their laws are `pilots.LAW`."""
    studies = []
    for seed in range(STUDIES):
        runs = pilots.study(np.random.default_rng(seed), noise=0.002, shift=0.002)
        studies.append(fit(runs, draws=100))
    return studies


@pytest.mark.parametrize("arm", pilots.LAW)
def test_intervals_cover_planted_laws_as_often_as_they_say(planted: list[Fits], arm: str) -> None:
    for name, truth in zip(("E", "K", "k"), pilots.LAW[arm], strict=True):
        misses = 0
        for fits in planted:
            parameter = fits.arms[arm].parameters[name]
            assert parameter.low < parameter.value < parameter.high
            misses += not parameter.low < truth < parameter.high
        assert misses <= MOST_MISSES, name


@pytest.mark.parametrize("arm", pilots.LAW)
def test_planted_laws_are_fitted_closely_and_without_cautions(
    planted: list[Fits], arm: str
) -> None:
    for fits in planted:
        law = fits.arms[arm]
        # Intervals that hold everything would cover, too.
        assert law.parameters["k"].high - law.parameters["k"].low < 0.05
        assert law.parameters["k"].draws.shape == (100,)
        assert law.usable
        assert law.cautions == ()
    residuals = [fits.arms[arm].residual_sd for fits in planted]
    assert np.mean(residuals) == pytest.approx(0.002, rel=0.2)


def test_predictions_and_differences_cover_planted_values_as_often_as_they_say(
    planted: list[Fits],
) -> None:
    budgets = np.array([1e15, 3e15])
    point = {arm: pilots.spend(arm, budgets) for arm in pilots.LAW}
    truth = pilots.loss("scratch", budgets) - pilots.loss("logit", budgets)
    misses = dict.fromkeys((*pilots.LAW, "difference"), 0)
    for fits in planted:
        for arm in pilots.LAW:
            predicted = fits.arms[arm].predict(point[arm].parameters, point[arm].tokens)
            loss = pilots.loss(arm, budgets)
            assert predicted.draws.shape == (100, 2)
            misses[arm] += not ((predicted.low < loss) & (loss < predicted.high)).all()
        gap = fits.difference("scratch", point["scratch"], "logit", point["logit"])
        misses["difference"] += not ((gap.low < truth) & (truth < gap.high)).all()
        np.testing.assert_allclose(gap.draws.mean(0), truth, atol=0.1)
    assert max(misses.values()) <= MOST_MISSES, misses


def test_score_is_fitted_as_mirrored_loss() -> None:
    runs = pilots.study(np.random.default_rng(2))
    losses = fit(runs, best=0.0, draws=200)
    scores = fit(
        [change(run, value=10 - run.value) for run in runs], better="higher", best=10.0, draws=200
    )
    for arm in pilots.LAW:
        as_loss = losses.arms[arm]
        two = scores.arms[arm]
        assert two.formula == "E - K * D'^-k"
        assert two.parameters["E"].value == pytest.approx(
            10 - as_loss.parameters["E"].value, rel=1e-6
        )
        assert two.parameters["E"].low == pytest.approx(10 - as_loss.parameters["E"].high, rel=1e-6)
        assert two.parameters["k"].value == pytest.approx(as_loss.parameters["k"].value, rel=1e-6)
        ahead = pilots.spend(arm, 1e15)
        mirrored = as_loss.predict(ahead.parameters, ahead.tokens)
        straight = two.predict(ahead.parameters, ahead.tokens)
        np.testing.assert_allclose(straight.low, 10 - mirrored.high, rtol=1e-6)


def test_draws_follow_from_the_seed() -> None:
    runs = pilots.study(np.random.default_rng(3))
    first = fit(runs, draws=200, seed=5).arms["logit"].parameters["k"]
    again = fit(runs, draws=200, seed=5).arms["logit"].parameters["k"]
    other = fit(runs, draws=200, seed=6).arms["logit"].parameters["k"]
    assert first.value == again.value == other.value
    np.testing.assert_array_equal(first.draws, again.draws)
    assert (first.draws != other.draws).all()


def test_repeated_text_counts_as_effective_tokens() -> None:
    runs = pilots.study(np.random.default_rng(4), noise=0.0, shift=0.0)
    repeated = []
    for run in runs:
        e, amplitude, k = pilots.LAW[run.arm]
        worth = float(effective_tokens(run.tokens, 1e6))
        repeated.append(change(run, unique=1e6, value=e + amplitude * worth**-k))
    fitted = fit(repeated, draws=200).arms["scratch"]
    assert fitted.parameters["k"].value == pytest.approx(0.25, rel=1e-2)
    # Beyond the last budget repeats are worth nothing: no saturation is missed.
    ends = fitted.predict(pilots.SIZE, [1e12, 1e14], 1e6).mean
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)
    assert fitted.predict(pilots.SIZE, 1e14).mean[0] < ends[0]


def test_noise_free_runs_give_narrow_intervals() -> None:
    fitted = fit(pilots.study(np.random.default_rng(5), noise=0.0, shift=0.0), draws=200).arms[
        "scratch"
    ]
    prediction = fitted.predict(pilots.SIZE, 1e9)
    assert prediction.mean[0] == pytest.approx(2.0 + 60 * 1e9**-0.25, abs=1e-4)
    assert prediction.high[0] - prediction.low[0] < 1e-4


def test_missing_run_still_fits() -> None:
    runs = pilots.study(np.random.default_rng(6), noise=0.003)
    fits = fit(
        [run for run in runs if (run.arm, run.seed, run.flops) != ("logit", 1, pilots.FLOPS[2])],
        draws=200,
    )
    assert fits.arms["logit"].parameters["k"].low < 0.45 < fits.arms["logit"].parameters["k"].high


def test_same_seeds_are_predicted_more_closely() -> None:
    runs = pilots.study(np.random.default_rng(7), noise=0.002, shift=0.1)
    width = {}
    for same in (False, True):
        predicted = fit(runs, draws=400, same_seeds=same).arms["scratch"].predict(pilots.SIZE, 1e8)
        width[same] = predicted.high[0] - predicted.low[0]
    assert width[True] < 0.3 * width[False]


def test_values_without_improvement_get_a_caution() -> None:
    flat = {arm: (3.0, 0.0, 0.3) for arm in pilots.LAW}
    fitted = fit(pilots.study(np.random.default_rng(8), law=flat, shift=0.0), draws=400).arms[
        "scratch"
    ]
    assert any("no improvement" in note for note in fitted.cautions)
    assert fitted.usable
    ahead = fitted.predict(pilots.SIZE, 1e10)
    assert ahead.low[0] < 3.0 < ahead.high[0]
    assert ahead.high[0] - ahead.low[0] < 0.3


def test_values_that_get_worse_are_not_usable() -> None:
    runs = pilots.study(np.random.default_rng(9))
    fits = fit(
        [run for run in runs if run.arm == "scratch"]
        + [change(run, value=9 - run.value) for run in runs if run.arm == "logit"],
        draws=200,
    )
    assert not fits.arms["logit"].usable
    assert any("worse" in note for note in fits.arms["logit"].cautions)
    assert fits.arms["scratch"].usable


def test_lack_of_fit_gets_a_caution() -> None:
    runs = pilots.study(np.random.default_rng(10), noise=0.002)
    bent = [change(run, value=run.value + 0.3 * (run.flops == pilots.FLOPS[1])) for run in runs]
    assert any("lack of fit" in note for note in fit(bent, draws=200).arms["scratch"].cautions)


def test_one_seed_and_short_range_get_cautions() -> None:
    short = np.geomspace(1e13, 2.5e13, 5)
    fitted = fit(pilots.study(np.random.default_rng(11), seeds=1, flops=short), draws=200).arms[
        "scratch"
    ]
    assert any("one seed" in note for note in fitted.cautions)
    assert any("less than 3" in note for note in fitted.cautions)
    assert fitted.shift_sd == 0


def test_reason_names_the_form() -> None:
    fitted = fit(pilots.study(np.random.default_rng(12)), draws=200).arms["scratch"]
    assert fitted.formula == "E + K * D'^-k"
    assert "one student size" in fitted.reason
    assert fitted.sizes == (pilots.SIZE, pilots.SIZE)
    np.testing.assert_allclose(fitted.tokens, (pilots.FLOPS[0] / 6e6, pilots.FLOPS[-1] / 6e6))


RUNS = pilots.study(np.random.default_rng(13), arms=("scratch",))


@pytest.mark.parametrize(
    "runs, options, message",
    [
        ([], {}, "found no runs"),
        ([*RUNS, RUNS[0]], {}, "found two runs"),
        ([change(RUNS[0], value=math.nan), *RUNS[1:]], {}, "value is nan"),
        ([change(RUNS[0], tokens=0.0), *RUNS[1:]], {}, "tokens is 0"),
        ([change(RUNS[0], flops=math.inf), *RUNS[1:]], {}, "flops is inf"),
        ([run for run in RUNS if run.flops < pilots.FLOPS[2]], {}, "2 budget"),
        ([run for run in RUNS if run.seed == 0][:3], {}, "3 budget"),
        ([*RUNS, PilotRun("scratch", 0, 1e13, 2e6, 1e6, math.inf, 4.0)], {}, "2 size"),
        (RUNS, {"better": "higher"}, "below the best possible, 1"),
        (RUNS, {"best": 5.0}, "above the best possible, 5"),
        (RUNS, {"confidence": 1.0}, "confidence is 1.0"),
        (RUNS, {"draws": 10}, "10 draws"),
    ],
)
def test_runs_that_cannot_be_fitted_are_refused(
    runs: list[PilotRun], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(runs, **options)


def test_size_unlike_the_runs_is_refused() -> None:
    fits = fit(RUNS, draws=200)
    with pytest.raises(InputError, match=r"fitted at 1e\+06 parameters only"):
        fits.arms["scratch"].predict(2e6, 1e8)
    with pytest.raises(InputError, match="tokens"):
        fits.difference("scratch", Point(pilots.SIZE, 0.0), "scratch", Point(pilots.SIZE, 1e8))
