"""An equal search: for every arm the same number of trials, from samplers of one kind and seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from kdjax.config import TuneConfig
from kdjax.evaluation.statistics import Better

_DIRECTIONS: Mapping[Better, Literal["minimize", "maximize"]] = {
    "lower": "minimize",
    "higher": "maximize",
}


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial: the endpoint's value, and what reaching it cost.

    Attributes:
        value: the endpoint's value, a mean over the trial's runs; None where training diverged.
        charged: FLOPs of all its runs that the budget's accounting charges.
        total: FLOPs of all its runs.
        steps: optimiser steps of all its runs.
        seconds: wall-clock seconds of all its runs.
    """

    value: float | None
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class TuningTrial:
    """A trial of an arm: its number from 0, the settings tried and their outcome."""

    number: int
    settings: dict[str, Any]
    outcome: TrialOutcome


def search(
    arms: Sequence[str],
    space: Mapping[str, BaseDistribution],
    tune: TuneConfig,
    better: Better,
    run: Callable[[str, int, dict[str, Any]], TrialOutcome],
) -> dict[str, list[TuningTrial]]:
    """Run the same number of trials for every arm; return arm -> its trials, in order.

    What is tried next follows from the sampler's seed and the arm's trials so far, and from nothing
    else: where `run` gives the outcomes of an earlier search again, the search goes on where that
    one stopped. Arms take turns, so that they have had equally many trials at any time, give or
    take one. A trial that diverged counts as worse than any that did not.

    Args:
        arms: names of the arms.
        space: setting -> the distribution that it is drawn from.
        tune: number of trials, and the sampler.
        better: whether lower or higher values of the endpoint are better.
        run: function that makes a trial (arm, number, settings), or reads it if made before.
    """
    # Samplers have state: each arm gets one of its own, so that no arm learns from another.
    with _quiet():
        studies = {
            arm: optuna.create_study(sampler=_sampler(tune), direction=_DIRECTIONS[better])
            for arm in arms
        }

    # All arms get a trial before one gets the next: a search cut short is still an equal one.
    trials: dict[str, list[TuningTrial]] = {arm: [] for arm in arms}
    for number in range(tune.trials):
        for arm, study in studies.items():
            proposal = study.ask(dict(space))
            settings = dict(proposal.params)
            # `run` gets a copy: what it does with it must not change the record.
            outcome = run(arm, number, dict(settings))
            if outcome.value is None:
                # Not FAIL: samplers forget failed trials, and would try there again.
                study.tell(proposal, state=TrialState.PRUNED)
            else:
                study.tell(proposal, outcome.value)
            trials[arm].append(TuningTrial(number, settings, outcome))
    return trials


def best_trial(trials: Sequence[TuningTrial], better: Better) -> TuningTrial | None:
    """Choose the trial of the best value, the first of equals; None where all diverged.

    Args:
        trials: trials of one arm, in the order in which they were made.
        better: which values are better: lower or higher.
    """
    scored = [(trial.outcome.value, trial) for trial in trials if trial.outcome.value is not None]
    if not scored:
        return None
    # Both return the first of equals; which is best must not depend on later trials.
    if better == "lower":
        return min(scored, key=lambda pair: pair[0])[1]
    return max(scored, key=lambda pair: pair[0])[1]


def _sampler(tune: TuneConfig) -> BaseSampler:
    """Build the sampler of one arm."""
    if tune.sampler == "tpe":
        return TPESampler(seed=tune.sampler_seed)
    if tune.sampler == "random":
        return RandomSampler(seed=tune.sampler_seed)
    # Scrambled: the plain Sobol sequence begins in the corner of all lowest values, and has no
    # seed.
    return QMCSampler(scramble=True, seed=tune.sampler_seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log, and its notice that the quasi-random sampler may change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
