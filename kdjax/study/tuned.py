"""The tuning that a recipe's settings come from, checked against the recipe, and notes on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.report import numbers
from kdjax.report.phrases import counted, listed, listed_settings, say
from kdjax.results.tuning import (
    ArmTrials,
    ArmTrialValues,
    ArmTuning,
    Tuning,
    TuningResults,
    TuningTerms,
)
from kdjax.storage.files import read_json
from kdjax.storage.paths import local_path
from kdjax.storage.typed_json import from_plain

_LOSSES = {"mlm_loss": "MLM loss", "mlm_probe": "MLM probe's loss"}


def check_tuning(config: Config) -> None:
    """Check that the arms of a recipe that names a tuning have the settings that it found best.

    Raises:
        InputError: no such file, an arm that was not tuned, or one whose settings are not the best
            ones.
    """
    tuning_of(config)


def tuning_of(config: Config) -> Tuning | None:
    """Read the tuning record of a recipe's arms, from the tuning.json that `tuning` names.

    Returns:
        None where the recipe names none.

    Raises:
        InputError: no such file, an arm that was not tuned, or one whose settings are not the best
            ones.
    """
    if not config.tuning:
        return None

    # Tuning of other arms is no tuning of these, nor are settings that were changed after it.
    path = local_path(config.tuning, "tuning")
    tuning = read_tuning(path)
    for name in config.arms:
        if name not in tuning.arms:
            raise InputError(
                f"arms.{name}: is not among the arms tuned in {path}, {', '.join(tuning.arms)}"
            )
        _check_best(config, name, tuning.arms[name].best.settings)
    terms = {f.name: getattr(tuning, f.name) for f in fields(TuningTerms)}
    arms = {name: _trial_values(tuning.arms[name]) for name in config.arms}
    return Tuning(**terms, file=str(path), arms=arms)


def _check_best(config: Config, arm: str, best: Mapping[str, Any]) -> None:
    """Check that an arm has the best settings of its trials, by their dotted names.

    Raises:
        InputError: one of its settings has another value.
    """
    for name, expected in best.items():
        section, setting = name.split(".")
        value = getattr(config.arms[arm], section).get(setting)
        if value != expected:
            raise InputError(
                f"arms.{arm}.{name} is {value!r}, expected {expected!r}, the best of "
                f"{config.tuning}; or an empty tuning"
            )


def read_tuning(path: Path) -> TuningResults:
    """Read a tuning.json.

    Raises:
        InputError: the file is no tuning.json.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not {"endpoint", "space", "arms"} <= content.keys():
        raise InputError(f"{path}: expected the tuning.json of `kdjax tune`, found something else")
    return from_plain(TuningResults, content, f"{path}:")


def _trial_values(trials: ArmTrials) -> ArmTrialValues:
    """Return an arm's tuning record with the values of its trials in place of the trials."""
    outcome = {f.name: getattr(trials, f.name) for f in fields(ArmTuning)}
    return ArmTrialValues(**outcome, values=tuple(trial.value for trial in trials.trials))


def notes(tuning: Tuning | TuningResults) -> list[str]:
    """Return notes on a tuning for readers of its study, one sentence each.

    Args:
        tuning: result of `tuning_of`, or the content of tuning.json.
    """
    endpoint = say("tuned_task", endpoint=tuning.endpoint)
    if tuning.endpoint in _LOSSES:
        endpoint = say("tuned_loss", loss=_LOSSES[tuning.endpoint])

    # A best value at the end of its range is worth a note, as is a trial that diverged.
    costs = []
    edges = []
    for name, arm in tuning.arms.items():
        costs.append(say("tuning_arm_cost", flops=numbers.flops(arm.charged), arm=name))
        if arm.diverged:
            edges.append(
                say("tuning_diverged", arm=name, diverged=arm.diverged, trials=tuning.trials)
            )
        for setting, end in arm.edges.items():
            best = format_value(arm.best.settings[setting])
            edges.append(say("tuning_edge", arm=name, setting=setting, value=best, end=end))
    terms = say(
        "tuned",
        trials=counted(tuning.trials, "trial"),
        sampler=tuning.sampler,
        sampler_seed=tuning.sampler_seed,
        space=listed(tuning.space),
        budget=numbers.budget(tuning.budget),
        seeds=listed(tuning.seeds),
        endpoint=endpoint,
    )
    return [terms, say("tuning_cost", costs=listed(costs)), *edges]


def format_settings(settings: Mapping[str, Any]) -> str:
    """Return settings as text: `optimizer.learning_rate 0.00123, student.dropout 0.1`."""
    return listed_settings(settings, format_value)


def format_value(value: Any) -> str:
    """Return a setting's value as text: three digits of a number that is not whole."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
