"""A pilot: a finished sweep over budgets, whose runs a forecast is fitted to."""

from __future__ import annotations

import numpy as np

from kdjax import forecast
from kdjax.config import Config, plain, to_dict
from kdjax.errors import InputError, nearest
from kdjax.results.verdicts import Endpoint
from kdjax.storage.paths import local_path
from kdjax.sweep.schema import SWEEP, SweepResults, read_sweep

SECTIONS = ("data", "student", "teacher", "train")
"""Sections of a recipe in which a pilot must be the same, unless it sweeps over them."""


def pilot_of(config: Config) -> SweepResults | None:
    """Return the sweep of the pilot; None where the recipe names none.

    Args:
        config: recipe of the plan.

    Raises:
        InputError: a pilot that is not finished, not over budgets of FLOPs, or of another student,
            teacher, text or training.
    """
    if not config.plan.pilot:
        return None

    # A law of the budget takes a finished sweep over several budgets.
    path = local_path(config.plan.pilot, "plan.pilot") / SWEEP
    if not path.is_file():
        raise InputError(
            f"plan.pilot: {path} is not there, expected the directory of a finished `kdjax sweep`"
        )
    sweep = read_sweep(path)
    if sweep.kind != "flops" or "budget.flops" not in sweep.fields:
        raise InputError(
            f"{path}: sweeps over {', '.join(sweep.fields)}, expected budget.flops among them"
        )

    # The runs say something of this recipe only where both are alike but for what was swept.
    recipe = plain(to_dict(config))
    swept = {name.split(".")[0] for name in sweep.fields}
    for section in SECTIONS:
        if section not in swept and recipe[section] != sweep.config[section]:
            raise InputError(
                f"{path}: its {section} is not the recipe's, expected a pilot of this recipe"
            )
    for name in config.arms:
        if recipe["arms"][name] != sweep.config["arms"].get(name):
            raise InputError(f"{path}: has no arm like the recipe's {name!r}, expected its arms")

    # What a budget buys depends on who pays for the teacher.
    pays = recipe["budget"]["teacher"]
    pilot_pays = sweep.config["budget"]["teacher"]
    if pays != pilot_pays:
        raise InputError(f"{path}: its budget.teacher is {pilot_pays!r}, expected {pays!r}")

    # The endpoint that is forecast must have been measured.
    endpoints = [endpoint.name for endpoint in sweep.endpoints]
    if config.plan.endpoint not in endpoints:
        raise InputError(
            f"plan.endpoint is {config.plan.endpoint!r}, expected one of "
            f"{', '.join(endpoints)}{nearest(config.plan.endpoint, endpoints)}"
        )
    return sweep


def endpoint_of(config: Config, pilot: SweepResults) -> Endpoint:
    """Return the pilot's endpoint that is forecast."""
    return next(e for e in pilot.endpoints if e.name == config.plan.endpoint)


def runs_of(config: Config, pilot: SweepResults) -> list[forecast.PilotRun]:
    """Return the pilot's runs, in the form that laws are fitted to.

    Args:
        config: recipe of the plan.
        pilot: sweep of the pilot.
    """
    endpoint = endpoint_of(config, pilot)
    return [
        forecast.PilotRun(
            arm=row.arm,
            seed=row.seed,
            flops=row.budget,
            parameters=row.parameters_without_embeddings,
            tokens=row.tokens_seen,
            unique=row.unique_tokens,
            value=row.metrics[endpoint.name],
        )
        for row in pilot.rows
        if row.arm in config.arms and endpoint.name in row.metrics
    ]


def text_of(config: Config, pilot: SweepResults | None) -> tuple[float, float]:
    """Return the share of positions that hold tokens, and how many tokens of text there are.

    Args:
        config: recipe of the plan.
        pilot: sweep of the pilot; None without one.
    """
    regime = config.data.regime
    if pilot is None or not pilot.rows:
        # Without runs nobody knows how much text there is, unless the recipe says so.
        return 1.0, config.data.unique_tokens if regime == "limited" else np.inf
    tokens = sum(row.tokens_seen for row in pilot.rows)
    fill = tokens / sum(row.padded_tokens for row in pilot.rows)
    if regime == "unlimited":
        return fill, np.inf
    return fill, float(max(row.unique_tokens for row in pilot.rows))
