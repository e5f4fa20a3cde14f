"""The search over trials that cost nothing: a loss that is known for every learning rate."""

from __future__ import annotations

import itertools
import json
import math
import operator
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
from kdjax.tuning.search import TrialOutcome, TuningTrial, best_trial, search

SPACE: dict[str, BaseDistribution] = {
    "optimizer.learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "optimizer.weight_decay": FloatDistribution(0.0, 1.0),
    "student.layers": IntDistribution(1, 6),
    "student.norm": CategoricalDistribution(("pre", "post")),
}
OPTIMA = {"scratch": 1e-2, "logit": 1e-3}
SAMPLERS = ("tpe", "random", "qmc")
Run = Callable[[str, int, dict[str, Any]], TrialOutcome]


def outcome(value: float | None) -> TrialOutcome:
    return TrialOutcome(value, charged=3, total=4, steps=2, seconds=0.5)


def loss(arm: str, number: int, settings: dict[str, Any]) -> TrialOutcome:
    """Return a loss that is lowest, 1, at the arm's optimum and without weight decay, and diverges
    far above it."""
    off = math.log10(settings["optimizer.learning_rate"] / OPTIMA[arm])
    if off > 0.8:
        return outcome(None)
    return outcome(1 + off**2 + 0.1 * settings["optimizer.weight_decay"])


def trials_of(
    sampler: Any, trials: int = 12, run: Run = loss, seed: int = 0
) -> dict[str, list[TuningTrial]]:
    """Return arm -> the trials of a search with a sampler."""
    tune = TuneConfig(trials=trials, sampler=sampler, sampler_seed=seed)
    return search(tuple(OPTIMA), SPACE, tune, "lower", run)


def settings_of(trials: list[TuningTrial]) -> list[dict[str, Any]]:
    return [trial.settings for trial in trials]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_arm_gets_the_same_number_of_trials_diverged_ones_included(sampler: str) -> None:
    by_arm = trials_of(sampler)
    assert by_arm.keys() == OPTIMA.keys()
    # A trial that diverged is one of the twelve.
    assert any(trial.outcome.value is None for trial in by_arm["logit"])
    for arm, trials in by_arm.items():
        assert [trial.number for trial in trials] == list(range(12))
        assert all(trial.outcome == loss(arm, trial.number, trial.settings) for trial in trials)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_of_the_arms_alternate(sampler: str) -> None:
    turns: list[tuple[int, str]] = []

    def note_turn(arm: str, number: int, settings: dict[str, Any]) -> TrialOutcome:
        turns.append((number, arm))
        return loss(arm, number, settings)

    trials_of(sampler, 3, note_turn)
    # Turn by turn: no arm is ahead of another by more than a trial.
    assert turns == list(itertools.product(range(3), OPTIMA))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samplers_that_do_not_learn_give_every_arm_the_same_points(sampler: str) -> None:
    """The points are the same also where one of the arms begins with trials that diverge."""

    def diverge_first(arm: str, number: int, settings: dict[str, Any]) -> TrialOutcome:
        if arm == "logit" and number < 3:
            return outcome(None)
        return outcome(float(number))

    by_arm = trials_of(sampler, run=diverge_first)
    # A sampler that does not learn cannot see that the first trials diverged.
    points = settings_of(by_arm["scratch"])
    assert points == settings_of(by_arm["logit"])
    assert len(set(map(json.dumps, points))) == 12
    # Another seed has other points.
    assert settings_of(trials_of(sampler, seed=1)["scratch"]) != points


def test_tpe_learns_from_each_arm_s_own_trials() -> None:
    by_arm = trials_of("tpe", 40)
    scratch = settings_of(by_arm["scratch"])
    logit = settings_of(by_arm["logit"])
    # The first ten trials are drawn before there is anything to learn from.
    assert scratch[:10] == logit[:10]
    assert not any(map(operator.eq, scratch[10:], logit[10:]))
    for arm, optimum in OPTIMA.items():
        best = best_trial(by_arm[arm], "lower")
        assert best is not None
        assert abs(math.log10(best.settings["optimizer.learning_rate"] / optimum)) < 0.3

        # Later trials lie closer to the optimum than those before the sampler had learned.
        rates = [point["optimizer.learning_rate"] for point in settings_of(by_arm[arm])]
        offs = [abs(math.log10(rate / optimum)) for rate in rates]
        assert np.median(offs[20:]) < 0.6 * np.median(offs[:10])


def test_quasi_random_points_fill_the_space_but_not_its_lowest_corner() -> None:
    points = settings_of(trials_of("qmc", 33)["scratch"])[1:]  # the first is drawn at random
    rates = [(math.log10(point["optimizer.learning_rate"]) + 5) / 4 for point in points]
    decays = [point["optimizer.weight_decay"] for point in points]
    # Of 32 points, each eighth of each range has its share.
    for positions in (rates, decays):
        counts = np.histogram(positions, bins=8, range=(0, 1))[0]
        assert counts.tolist() == [4] * 8
        assert min(positions) > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_search_that_was_killed_goes_on_with_the_same_trials(sampler: str) -> None:
    # What the search is that nothing interrupts.
    whole = trials_of(sampler)
    stored: dict[tuple[str, int], tuple[dict[str, Any], TrialOutcome]] = {}
    runs: list[tuple[str, int]] = []

    def until(limit: int) -> Run:
        # Trials that have ended are read, not run.
        def run(arm: str, number: int, settings: dict[str, Any]) -> TrialOutcome:
            if (arm, number) in stored:
                stored_settings, stored_outcome = stored[arm, number]
                assert settings == stored_settings
                return stored_outcome
            if len(runs) == limit:
                raise KeyboardInterrupt
            runs.append((arm, number))
            # As it comes back from the disk.
            stored[arm, number] = json.loads(json.dumps(settings)), loss(arm, number, settings)
            return stored[arm, number][1]

        return run

    # Killed after one, six and seventeen trials in all.
    for limit in (1, 6, 17):
        with pytest.raises(KeyboardInterrupt):
            trials_of(sampler, run=until(limit))
    assert trials_of(sampler, run=until(24)) == whole
    # No trial is run twice.
    assert len(runs) == len(set(runs)) == 24


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_longer_search_begins_with_the_trials_of_a_shorter_one(sampler: str) -> None:
    longer = trials_of(sampler, 9)
    # How many trials there will be does not decide what they are.
    assert {arm: trials[:5] for arm, trials in longer.items()} == trials_of(sampler, 5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_are_plain_values_of_the_space(sampler: str) -> None:
    for trial in trials_of(sampler)["scratch"]:
        assert list(trial.settings) == list(SPACE)
        # Types matter: a setting is written into a recipe as it is.
        assert [type(value) for value in trial.settings.values()] == [float, float, int, str]
        assert 1e-5 <= trial.settings["optimizer.learning_rate"] <= 1e-1
        assert 1 <= trial.settings["student.layers"] <= 6


def test_search_prints_and_warns_nothing(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for sampler in SAMPLERS:
        trials_of(sampler, 2)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_best_trial_is_the_first_of_equals_and_never_one_that_diverged() -> None:
    outcomes = map(outcome, [None, 2.0, 1.0, 1.0, 3.0, 3.0])
    trials = [TuningTrial(number, {}, value) for number, value in enumerate(outcomes)]
    lowest = best_trial(trials, "lower")
    highest = best_trial(trials, "higher")
    # The lowest and the highest, the first of equals each time.
    assert lowest is not None
    assert highest is not None
    assert (lowest.number, highest.number) == (2, 4)
    # With none that ended there is no best.
    assert best_trial(trials[:1], "lower") is None
