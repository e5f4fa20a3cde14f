"""An equal search: every arm gets the same number of trials from a sampler of the same kind and
seed."""

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

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        value: of the endpoint; None where training diverged.
        charged: FLOPs of its runs that the budget's accounting charges.
        total: FLOPs of its runs in all.
        steps: of its runs together.
        seconds: wall-clock of its runs together.
    """

    value: float | None
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One trial of an arm: its number from 0, the settings tried and what they came to."""

    number: int
    settings: dict[str, Any]
    outcome: Outcome


def search(
    arms: Sequence[str],
    space: Mapping[str, BaseDistribution],
    tune: TuneConfig,
    better: Better,
    run: Callable[[str, int, dict[str, Any]], Outcome],
) -> dict[str, list[Trial]]:
    """Return arm -> its `tune.trials` trials, in order.

    What is tried next follows from the sampler's seed and the arm's trials so far, and from nothing
    else: where `run` gives the outcomes of an earlier search again, the search goes on where that
    one stopped. Arms take turns, so that they have had equally many trials at any time, give or
    take one. A trial that diverged counts as worse than any that did not.

    Args:
        arms: their names.
        space: setting -> what it is drawn from.
        tune: how many trials, and the sampler.
        better: which values of the endpoint are.
        run: makes a trial, or reads it: from arm, number and settings.
    """
    with _quiet():
        # The samplers own their state: one for each arm.
        studies = {
            arm: optuna.create_study(
                sampler=_sampler(tune), direction="minimize" if better == "lower" else "maximize"
            )
            for arm in arms
        }
    trials: dict[str, list[Trial]] = {arm: [] for arm in arms}
    for number in range(tune.trials):
        for arm, study in studies.items():
            proposal = study.ask(dict(space))
            settings = dict(proposal.params)
            outcome = run(arm, number, dict(settings))
            if outcome.value is None:
                # Not FAIL: samplers forget failed trials, and would try there again.
                study.tell(proposal, state=TrialState.PRUNED)
            else:
                study.tell(proposal, outcome.value)
            trials[arm].append(Trial(number, settings, outcome))
    return trials


def best_of(trials: Sequence[Trial], better: Better) -> Trial | None:
    """Return the best of the trials that did not diverge, the first of equals; None where all
    did."""
    best: tuple[float, Trial] | None = None
    sign = 1 if better == "lower" else -1
    for trial in trials:
        if trial.outcome.value is None:
            continue
        loss = sign * trial.outcome.value
        if best is None or loss < best[0]:
            best = (loss, trial)
    return best[1] if best else None


def _sampler(tune: TuneConfig) -> BaseSampler:
    """Return the sampler of one arm."""
    if tune.sampler == "tpe":
        return TPESampler(seed=tune.sampler_seed)
    if tune.sampler == "random":
        return RandomSampler(seed=tune.sampler_seed)
    # Scrambled: the plain Sobol sequence begins in the corner of all lowest values, and has no
    # seed.
    return QMCSampler(scramble=True, seed=tune.sampler_seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's news of what it makes, and its notice that its quasi-random sampler may
    change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
