"""A pilot: a finished sweep over budgets, whose runs a forecast is fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax import forecast
from kdjax.config import Config, plain, to_dict
from kdjax.errors import InputError, nearest
from kdjax.files import read_json
from kdjax.sweep.sweep import NAME


def pilot_of(config: Config) -> dict[str, Any]:
    """The sweep of the pilot.

    Raises:
        InputError: it is not finished, not over budgets of FLOPs, or of another student, teacher,
            text or training.
    """
    path = Path(config.plan.pilot) / NAME
    if not path.is_file():
        raise InputError(
            f"plan.pilot: {path} is not there, expected the directory of a finished `kdjax sweep`"
        )
    found: dict[str, Any] = read_json(path)
    if found["kind"] != "flops" or "budget.flops" not in found["fields"]:
        raise InputError(
            f"{path}: sweeps over {', '.join(found['fields'])}, expected budget.flops among them"
        )
    own = plain(to_dict(config))
    theirs = found["config"]
    swept = {name.split(".")[0] for name in found["fields"]}
    for section in ("data", "student", "teacher", "train"):
        if section not in swept and own[section] != theirs[section]:
            raise InputError(
                f"{path}: its {section} is not the recipe's, expected a pilot of this recipe"
            )
    missing = [name for name in config.arms if own["arms"][name] != theirs["arms"].get(name)]
    if missing:
        raise InputError(f"{path}: has no arm like the recipe's {missing[0]!r}, expected its arms")
    if own["budget"]["teacher"] != theirs["budget"]["teacher"]:
        raise InputError(
            f"{path}: its budget.teacher is {theirs['budget']['teacher']!r}, expected "
            f"{own['budget']['teacher']!r}"
        )
    endpoints = {endpoint["name"]: endpoint for endpoint in found["endpoints"]}
    if config.plan.endpoint not in endpoints:
        near = nearest(config.plan.endpoint, endpoints)
        raise InputError(
            f"plan.endpoint is {config.plan.endpoint!r}, expected one of "
            f"{', '.join(endpoints)}{near}"
        )
    return found


def runs_of(config: Config, pilot: Mapping[str, Any]) -> list[forecast.PilotRun]:
    """The pilot's runs as what a law is fitted to; of other swept settings, those that are the
    recipe's or sizes."""
    endpoint = config.plan.endpoint
    arms = next(e for e in pilot["endpoints"] if e["name"] == endpoint)["arms"]
    rows = [row for row in pilot["rows"] if row["arm"] in config.arms and row["arm"] in arms]
    return [
        forecast.PilotRun(
            arm=row["arm"],
            seed=row["seed"],
            flops=row["budget"],
            parameters=row["parameters_without_embeddings"],
            tokens=row["tokens_seen"],
            unique=row["unique_tokens"],
            value=row["metrics"][endpoint],
        )
        for row in rows
    ]


def text_of(config: Config, pilot: Mapping[str, Any] | None) -> tuple[float, float]:
    """How full sequences are, and how many tokens of text there are, as far as that is known."""
    if pilot is None or not pilot["rows"]:
        unique = config.data.unique_tokens if config.data.regime == "limited" else np.inf
        return 1.0, unique
    rows = pilot["rows"]
    fill = sum(row["tokens_seen"] for row in rows) / sum(row["positions"] for row in rows)
    unique = (
        np.inf
        if config.data.regime == "unlimited"
        else float(max(row["unique_tokens"] for row in rows))
    )
    return fill, unique
