"""The tuning that a recipe's settings come from, checked against the recipe, and notes on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.files import read_json
from kdjax.report import numbers

_SHARED = (
    "endpoint",
    "better",
    "trials",
    "share",
    "budget",
    "seeds",
    "sampler",
    "sampler_seed",
    "space",
)
_OF_ARM = ("diverged", "best", "edges", "charged", "total", "steps", "seconds")
_LOSSES = {"mlm_loss": "MLM loss", "mlm_probe": "MLM probe's loss"}


def tuning_of(config: Config) -> dict[str, Any] | None:
    """Read how a recipe's arms were tuned from the file that `tuning` names; None: it names none.

    Returns:
        `file`, its path. The same for every arm: `endpoint`, `better`, `trials`, `share` and
        `budget` (as `kdjax.budget.accounting.Budget`) of a trial, `seeds`, `sampler`,
        `sampler_seed`, `space`. And `arms`: arm ->
        `values`, those of its trials in order (None: diverged), `diverged`, how many; `best`
        (number, settings, value); `edges`, setting -> the end of its range, `low` or `high`, at
        which the best lies; and over all its trials `charged` and `total` FLOPs, `steps` and
        `seconds`.

    Raises:
        InputError: no such file, an arm that was not tuned, or one whose settings are not the best
            ones.
    """
    if not config.tuning:
        return None
    path = Path(config.tuning)
    tuning = read_json(path)
    if not isinstance(tuning, dict) or not {*_SHARED, "arms"} <= tuning.keys():
        raise InputError(f"{path}: expected the tuning.json of `kdjax tune`, found something else")
    # A recipe may have fewer arms than were tuned, and no other.
    arms = {}
    for name in config.arms:
        if name not in tuning["arms"]:
            raise InputError(
                f"arms.{name}: is not among the arms tuned in {path}, {', '.join(tuning['arms'])}"
            )
        tuned = tuning["arms"][name]
        _check_best(config, name, tuned["best"]["settings"])
        values = [trial["value"] for trial in tuned["trials"]]
        arms[name] = {"values": values, **{key: tuned[key] for key in _OF_ARM}}
    return {"file": str(path), **{key: tuning[key] for key in _SHARED}, "arms": arms}


def _check_best(config: Config, arm: str, best: Mapping[str, Any]) -> None:
    """Check that an arm has the best settings that were found, by their dotted names.

    Raises:
        InputError: it has another.
    """
    for name, expected in best.items():
        section, setting = name.split(".")
        value = getattr(config.arms[arm], section).get(setting)
        if value != expected:
            raise InputError(
                f"arms.{arm}.{name} is {value!r}, expected {expected!r}, the best of "
                f"{Path(config.tuning)}; or an empty tuning"
            )


def notes(tuning: Mapping[str, Any]) -> list[str]:
    """Return what a reader should know of a tuning, as sentences.

    Args:
        tuning: from `tuning_of`, or the content of tuning.json.
    """
    trials = tuning["trials"]
    endpoint = tuning["endpoint"]
    arms = tuning["arms"]
    # How trials were made and judged, which is the same for all arms.
    measured = f"{endpoint} on the task's dev rows"
    if endpoint in _LOSSES:
        measured = f"the {_LOSSES[endpoint]} on held-out sequences that the evaluation does not use"
    seeds = numbers.listed([str(seed) for seed in tuning["seeds"]])
    spent = [f"{numbers.flops(arm['charged'])} FLOPs for {name}" for name, arm in arms.items()]
    lines = [
        f"Every arm was tuned alike: {trials} trial{_plural(trials)} "
        f"({tuning['sampler']}, seed "
        f"{tuning['sampler_seed']}) over {numbers.listed(list(tuning['space']))}, each with "
        f"{numbers.budget(tuning['budget'])} on seed{_plural(len(tuning['seeds']))} "
        f"{seeds}, judged by {measured}.",
        f"Tuning took {numbers.listed(spent)}; that is not in the budget.",
    ]
    # What may be doubted of an arm's settings.
    for name, arm in arms.items():
        if arm["diverged"]:
            lines.append(f"{name}: {arm['diverged']} of {trials} trials diverged.")
        for setting, end in arm["edges"].items():
            best = format_value(arm["best"]["settings"][setting])
            lines.append(
                f"{name}: the best {setting}, {best}, lies at the {end} end of its range, which "
                "may be too narrow."
            )
    return lines


def _plural(count: int) -> str:
    return "s" if count != 1 else ""


def format_settings(settings: Mapping[str, Any]) -> str:
    """Return settings for people: `optimizer.learning_rate 0.00123, student.dropout 0.1`."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in settings.items())


def format_value(value: Any) -> str:
    """Return a setting's value for people: three digits of a number that is not whole."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
