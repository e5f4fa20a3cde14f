"""The search itself, over trials that cost nothing: a loss that is known for every learning
rate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdjax.config import TuneConfig
from kdjax.tuning.search import Outcome, Trial, best_of, search

SPACE: dict[str, BaseDistribution] = {
    "optimizer.learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "optimizer.weight_decay": FloatDistribution(0.0, 1.0),
    "student.layers": IntDistribution(1, 6),
    "student.norm": CategoricalDistribution(("pre", "post")),
}
OPTIMA = {"scratch": 1e-2, "logit": 1e-3}
SAMPLERS = ("tpe", "random", "qmc")
Run = Callable[[str, int, dict[str, Any]], Outcome]


def outcome(value: float | None) -> Outcome:
    return Outcome(value, charged=3, total=4, steps=2, seconds=0.5)


def loss(arm: str, number: int, settings: dict[str, Any]) -> Outcome:
    """Lowest, 1, at the arm's optimum and without weight decay; diverges far above it."""
    off = math.log10(settings["optimizer.learning_rate"] / OPTIMA[arm])
    return outcome(None if off > 0.8 else 1 + off**2 + 0.1 * settings["optimizer.weight_decay"])


def found(sampler: Any, trials: int = 12, run: Run = loss, seed: int = 0) -> dict[str, list[Trial]]:
    tune = TuneConfig(trials=trials, sampler=sampler, sampler_seed=seed)
    return search(tuple(OPTIMA), SPACE, tune, "lower", run)


def points(trials: list[Trial]) -> list[dict[str, Any]]:
    return [trial.settings for trial in trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_arm_gets_the_same_number_of_trials_diverged_ones_included(sampler: str) -> None:
    made = found(sampler)
    assert {arm: [trial.number for trial in trials] for arm, trials in made.items()} == {
        arm: list(range(12)) for arm in OPTIMA
    }
    assert any(trial.outcome.value is None for trial in made["logit"])
    for arm, trials in made.items():
        assert all(trial.outcome == loss(arm, trial.number, trial.settings) for trial in trials)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_arms_take_turns(sampler: str) -> None:
    turns: list[tuple[int, str]] = []

    def noted(arm: str, number: int, settings: dict[str, Any]) -> Outcome:
        turns.append((number, arm))
        return loss(arm, number, settings)

    found(sampler, 3, noted)
    assert turns == [(number, arm) for number in range(3) for arm in OPTIMA]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samplers_that_do_not_learn_give_every_arm_the_same_points(sampler: str) -> None:
    """Also where one of them begins with trials that diverge."""

    def one_fails_first(arm: str, number: int, settings: dict[str, Any]) -> Outcome:
        return outcome(None if arm == "logit" and number < 3 else float(number))

    made = found(sampler, run=one_fails_first)
    assert points(made["scratch"]) == points(made["logit"])
    assert len({json.dumps(point) for point in points(made["scratch"])}) == 12
    assert points(found(sampler, seed=1)["scratch"]) != points(made["scratch"])


def test_tpe_learns_from_each_arm_by_itself() -> None:
    made = found("tpe", 40)
    assert points(made["scratch"])[:10] == points(made["logit"])[:10]
    assert all(
        one != other
        for one, other in zip(points(made["scratch"])[10:], points(made["logit"])[10:], strict=True)
    )
    for arm, optimum in OPTIMA.items():
        best = best_of(made[arm], "lower")
        assert best is not None
        assert abs(math.log10(best.settings["optimizer.learning_rate"] / optimum)) < 0.3
        offs = [abs(math.log10(p["optimizer.learning_rate"] / optimum)) for p in points(made[arm])]
        assert np.median(offs[20:]) < 0.6 * np.median(offs[:10])


def test_the_quasi_random_points_fill_the_space() -> None:
    """Of 32 points, each eighth of each range has about its share, and none lies in the corner of
    lowest values."""
    made = points(found("qmc", 33)["scratch"])[1:]  # the first is drawn at random
    rates = [(math.log10(point["optimizer.learning_rate"]) + 5) / 4 for point in made]
    for places in (rates, [point["optimizer.weight_decay"] for point in made]):
        counts = np.histogram(places, bins=8, range=(0, 1))[0]
        assert counts.tolist() == [4] * 8
        assert min(places) > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_was_killed_goes_on_with_the_same_trials(sampler: str) -> None:
    whole = found(sampler)
    stored: dict[tuple[str, int], tuple[dict[str, Any], Outcome]] = {}
    made: list[tuple[str, int]] = []

    def until(limit: int) -> Run:
        def run(arm: str, number: int, settings: dict[str, Any]) -> Outcome:
            if (arm, number) in stored:
                before, kept = stored[arm, number]
                assert settings == before
                return kept
            if len(made) == limit:
                raise KeyboardInterrupt
            made.append((arm, number))
            # As it comes back from the disk.
            stored[arm, number] = json.loads(json.dumps(settings)), loss(arm, number, settings)
            return stored[arm, number][1]

        return run

    for limit in (1, 6, 17):
        with pytest.raises(KeyboardInterrupt):
            found(sampler, run=until(limit))
    assert found(sampler, run=until(24)) == whole
    assert len(made) == len(set(made)) == 24


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_trials_begin_with_those_there_were(sampler: str) -> None:
    few = found(sampler, 5)
    more = found(sampler, 9)
    assert {arm: trials[:5] for arm, trials in more.items()} == few


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_are_plain_values_of_the_space(sampler: str) -> None:
    for trial in found(sampler)["scratch"]:
        assert list(trial.settings) == list(SPACE)
        assert [type(value) for value in trial.settings.values()] == [float, float, int, str]
        assert 1e-5 <= trial.settings["optimizer.learning_rate"] <= 1e-1
        assert 1 <= trial.settings["student.layers"] <= 6


def test_nothing_is_printed(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for sampler in SAMPLERS:
        found(sampler, 2)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_the_best_is_the_first_of_equals_and_never_one_that_diverged() -> None:
    trials = [
        Trial(n, {}, outcome(value)) for n, value in enumerate([None, 2.0, 1.0, 1.0, 3.0, 3.0])
    ]
    lowest = best_of(trials, "lower")
    highest = best_of(trials, "higher")
    assert lowest is not None and highest is not None
    assert (lowest.number, highest.number) == (2, 4)
    assert best_of(trials[:1], "lower") is None
