"""What a recipe's settings come from: the tuning it names, checked against it, and what a reader
should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.config import Config
from kdjax.errors import InputError
from kdjax.files import read_json
from kdjax.report import numbers

_ALIKE = (
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


def tuning_of(config: Config) -> dict[str, Any] | None:
    """How a recipe's arms were tuned, from the tuning.json that `tuning` names; None where it names
    none.

    Returns:
        `file`, its path. Alike for every arm: `endpoint`, `better`, `trials`, `share` and `budget`
        (as `kdjax.budget.accounting.Budget`) of a trial, `seeds`, `sampler`, `sampler_seed`,
        `space`. And `arms`: arm ->
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
    found = read_json(path)
    if not isinstance(found, dict) or not {*_ALIKE, "arms"} <= found.keys():
        raise InputError(f"{path}: expected the tuning.json of `kdjax tune`, found something else")
    for name, arm in config.arms.items():
        if name not in found["arms"]:
            raise InputError(
                f"arms.{name}: is not among the arms tuned in {path}, {', '.join(found['arms'])}"
            )
        for setting, best in found["arms"][name]["best"]["settings"].items():
            section, own = setting.split(".")
            if (value := getattr(arm, section).get(own)) != best:
                raise InputError(
                    f"arms.{name}.{setting} is {value!r}, expected {best!r}, the best of {path}; "
                    "or an empty tuning"
                )
    return {
        "file": str(path),
        **{name: found[name] for name in _ALIKE},
        "arms": {
            name: {
                "values": [trial["value"] for trial in found["arms"][name]["trials"]],
                **{key: found["arms"][name][key] for key in _OF_ARM},
            }
            for name in config.arms
        },
    }


def notes(tuning: Mapping[str, Any]) -> list[str]:
    """What a reader should know of a tuning, as sentences.

    Args:
        tuning: from `tuning_of`, or the content of tuning.json.
    """
    count = tuning["trials"]
    seeds = tuning["seeds"]
    arms = tuning["arms"]
    spent = [f"{numbers.flops(arm['charged'])} FLOPs for {name}" for name, arm in arms.items()]
    apart = {"mlm_loss": "MLM loss", "mlm_probe": "MLM probe's loss"}
    where = (
        f"the {apart[tuning['endpoint']]} on held-out sequences that the evaluation does not use"
        if tuning["endpoint"] in apart
        else f"{tuning['endpoint']} on the task's dev rows"
    )
    made = [
        f"Every arm was tuned alike: {count} trial{'' if count == 1 else 's'} "
        f"({tuning['sampler']}, seed "
        f"{tuning['sampler_seed']}) over {numbers.listed(list(tuning['space']))}, each with "
        f"{numbers.budget(tuning['budget'])} on seed{'' if len(seeds) == 1 else 's'} "
        f"{numbers.listed([str(seed) for seed in seeds])}, judged by {where}.",
        f"Tuning took {numbers.listed(spent)}; that is not in the budget.",
    ]
    for name, arm in arms.items():
        if arm["diverged"]:
            made.append(f"{name}: {arm['diverged']} of {count} trials diverged.")
        for setting, end in arm["edges"].items():
            best = shown_value(arm["best"]["settings"][setting])
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
