"""What a recipe's settings come from: the tuning it names, checked against it, and what a reader
should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.files import read_json
from kdjax.report import numbers
from kdjax.results.schema import (
    ArmTrials,
    ArmTrialValues,
    ArmTuning,
    Tuning,
    TuningResults,
    TuningTerms,
)
from kdjax.results.store import from_plain


def tuning_of(config: Config) -> Tuning | None:
    """Return how a recipe's arms were tuned, from the tuning.json that `tuning` names.

    Returns:
        None where the recipe names none.

    Raises:
        InputError: no such file, an arm that was not tuned, or one whose settings are not the best
            ones.
    """
    if not config.tuning:
        return None
    path = Path(config.tuning)
    tuning = read_tuning(path)
    for name, arm in config.arms.items():
        if name not in tuning.arms:
            raise InputError(
                f"arms.{name}: is not among the arms tuned in {path}, {', '.join(tuning.arms)}"
            )
        for setting, best in tuning.arms[name].best.settings.items():
            section, own = setting.split(".")
            if (value := getattr(arm, section).get(own)) != best:
                raise InputError(
                    f"arms.{name}.{setting} is {value!r}, expected {best!r}, the best of {path}; "
                    "or an empty tuning"
                )
    terms = {f.name: getattr(tuning, f.name) for f in fields(TuningTerms)}
    arms = {name: _trial_values(tuning.arms[name]) for name in config.arms}
    return Tuning(**terms, file=str(path), arms=arms)


def read_tuning(path: Path) -> TuningResults:
    """Read a tuning.json.

    Raises:
        InputError: it is none.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not {"endpoint", "space", "arms"} <= content.keys():
        raise InputError(f"{path}: expected the tuning.json of `kdjax tune`, found something else")
    return from_plain(TuningResults, content, f"{path}:")


def _trial_values(trials: ArmTrials) -> ArmTrialValues:
    """Return what an arm's trials came to, without the trials."""
    outcome = {f.name: getattr(trials, f.name) for f in fields(ArmTuning)}
    return ArmTrialValues(**outcome, values=tuple(trial.value for trial in trials.trials))


def notes(tuning: Tuning | TuningResults) -> list[str]:
    """What a reader should know of a tuning, as sentences.

    Args:
        tuning: as results.json or tuning.json has it.
    """
    count = tuning.trials
    seeds = tuning.seeds
    arms = tuning.arms
    spent = [f"{numbers.flops(arm.charged)} FLOPs for {name}" for name, arm in arms.items()]
    apart = {"mlm_loss": "MLM loss", "mlm_probe": "MLM probe's loss"}
    where = (
        f"the {apart[tuning.endpoint]} on held-out sequences that the evaluation does not use"
        if tuning.endpoint in apart
        else f"{tuning.endpoint} on the task's dev rows"
    )
    made = [
        f"Every arm was tuned alike: {count} trial{'' if count == 1 else 's'} "
        f"({tuning.sampler}, seed "
        f"{tuning.sampler_seed}) over {numbers.listed(list(tuning.space))}, each with "
        f"{numbers.budget(tuning.budget)} on seed{'' if len(seeds) == 1 else 's'} "
        f"{numbers.listed([str(seed) for seed in seeds])}, judged by {where}.",
        f"Tuning took {numbers.listed(spent)}; that is not in the budget.",
    ]
    for name, arm in arms.items():
        if arm.diverged:
            made.append(f"{name}: {arm.diverged} of {count} trials diverged.")
        for setting, end in arm.edges.items():
            best = shown_value(arm.best.settings[setting])
            made.append(
                f"{name}: the best {setting}, {best}, lies at the {end} end of its range, which "
                "may be too narrow."
            )
    return made


def shown(settings: Mapping[str, Any]) -> str:
    """Settings for people: `optimizer.learning_rate 0.00123, student.dropout 0.1`."""
    return ", ".join(f"{name} {shown_value(value)}" for name, value in settings.items())


def shown_value(value: Any) -> str:
    """A setting's value: three digits of a number that is not whole."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
