"""How arms were tuned, as results.json and tuning.json have it.

A study's results hold less of it than tuning.json does: base classes have what is in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdjax.budget.accounting import Budget
from kdjax.evaluation.statistics import Better
from kdjax.results.text import CountedLosses
from kdjax.storage.typed_json import optional


@dataclass(frozen=True)
class BestTrial:
    """An arm's best trial: its number, the settings tried and the endpoint's value."""

    number: int
    settings: dict[str, Any]
    value: float


@dataclass(frozen=True)
class ArmTuning:
    """A summary of an arm's trials.

    Attributes:
        diverged: number of trials that diverged.
        best: trial with the best value.
        edges: setting -> end of its range, `low` or `high`, at which the best trial lies.
        charged, total, steps, seconds: sums over all trials.
    """

    diverged: int
    best: BestTrial
    edges: dict[str, str]
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class ArmTrialValues(ArmTuning):
    """A summary of an arm's trials, with their values in order; None: diverged."""

    values: tuple[float | None, ...]


@dataclass(frozen=True)
class TrialRow:
    """A trial: its number, the settings tried, its value (None: diverged) and its costs."""

    number: int
    settings: dict[str, Any]
    value: float | None
    charged: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class ArmTrials(ArmTuning):
    """A summary of an arm's trials, and the trials themselves."""

    trials: tuple[TrialRow, ...]


@dataclass(frozen=True)
class TuningTerms:
    """The terms that were alike for every tuned arm; see `kdjax.config.TuneConfig`."""

    endpoint: str
    better: Better
    trials: int
    share: float
    budget: Budget
    seeds: tuple[int, ...]
    sampler: str
    sampler_seed: int
    space: dict[str, Any]


@dataclass(frozen=True)
class Tuning(TuningTerms):
    """The tuning of a study's arms, as results.json has it.

    Attributes:
        file: path of the tuning.json.
        arms: arm -> summary of its trials.
    """

    file: str
    arms: dict[str, ArmTrialValues]


@dataclass(frozen=True)
class TuningResults(TuningTerms):
    """A tuning: the content of tuning.json.

    Attributes:
        kdjax, jax, python, device, optuna: versions and device the numbers were made with.
        config_digest: SHA-256 of the resolved recipe.
        arms: arm -> its trials.
        ngram_losses: cross-entropies of the trials' text; None in a file from before they were
            counted.
    """

    kdjax: str
    jax: str
    python: str
    device: str
    optuna: str
    config_digest: str
    arms: dict[str, ArmTrials]
    ngram_losses: CountedLosses | None = optional("reference_losses")
