"""`kdjax plan`: what each arm would reach at budgets nobody has spent, from published laws and from
pilot runs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from kdjax import forecast
from kdjax.budget.accounting import CASES, Budget
from kdjax.config import Config, plain, to_dict
from kdjax.dry_run.arms import arms_of, shape_of
from kdjax.dry_run.teacher_cost import cost_by_recipe
from kdjax.errors import InputError
from kdjax.files import check_writable, digest, write_json
from kdjax.plan import prior, report, table
from kdjax.plan.pilot import pilot_of, runs_of, text_of
from kdjax.plan.spending import Spending
from kdjax.study.compare import PLAIN_WIDTH
from kdjax.study.machine import versions
from kdjax.training.phase import price

BEYOND = (1, 3, 10, 30, 100)
"""Budgets that are forecast where the recipe names none, as multiples of the largest that was
spent."""
GRID = 60
"""Budgets between the smallest and the largest at which pairs of arms are compared."""

Array = NDArray[np.float64]


def plan(config: Config, out: Path) -> dict[str, Any]:
    """Forecasts.

    Args:
        config: the recipe; `plan.pilot` names the sweep whose runs are fitted.
        out: gets `plan.json` and `plan.html`.

    Returns:
        What `plan.json` holds.

    Raises:
        InputError: a pilot that is not there, or not this recipe's; too few budgets to fit.
    """
    check_writable(out)
    found = forecasts(config)
    write_json(out / "plan.json", found)
    report.write(found, out / "plan.html")
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table.summary(found))
    print(f"report: {out / 'plan.html'}")
    return found


def forecasts(config: Config) -> dict[str, Any]:
    """The content of `plan.json`.

    Returns: `budgets`, `arms` (prices, parameters and what each budget buys: steps, tokens, epochs
        and, of repeated text,
        the tokens it is worth), `prior` (published laws: see `kdjax.plan.prior`), and from pilot
        runs `fits` (arm -> formula, parameters with intervals, predictions at the budgets and on a
        grid), `held_out` (errors of the fit when the largest budgets are left out), `widening` (arm
        or `a - b` -> by how much intervals were widened because held-out budgets lay outside),
        `contests` (case of who pays for the teacher -> pairs of arms: who wins at which budget,
        where they cross). The last four are None without a pilot.
    """
    arms = arms_of(config)
    shape = shape_of(config)
    pilot = pilot_of(config) if config.plan.pilot else None
    runs = runs_of(config, pilot) if pilot else []
    budgets = _budgets(config, runs)
    fill, unique = text_of(config, pilot)
    spending = {
        name: Spending(
            arm,
            tuple(price(phase, phase.shape(shape)) for phase in arm.phases),
            config,
            fill,
            unique,
        )
        for name, arm in arms.items()
    }
    case = config.budget.teacher
    values = plain(to_dict(config))
    found: dict[str, Any] = {
        **versions(),
        "config": values,
        "config_digest": digest(values),
        "endpoint": config.plan.endpoint,
        "case": case,
        "budgets": budgets,
        "unique_tokens": None if np.isinf(unique) else unique,
        "arms": {
            name: {
                "parameters_without_embeddings": one.parameters,
                "prices": [price.to_json() for price in one.prices],
                "bought": [one.bought(flops, case) for flops in budgets],
            }
            for name, one in spending.items()
        },
        "prior": prior.published(config, spending, budgets, case),
        "pilot": None,
        "fits": None,
        "held_out": None,
        "widening": None,
        "contests": None,
    }
    if pilot is None:
        return found
    return {**found, **_fitted(config, pilot, runs, spending, budgets)}


def _fitted(
    config: Config,
    pilot: Mapping[str, Any],
    runs: Sequence[forecast.PilotRun],
    spending: Mapping[str, Spending],
    budgets: Sequence[float],
) -> dict[str, Any]:
    """What the pilot's runs say."""
    endpoint = next(e for e in pilot["endpoints"] if e["name"] == config.plan.endpoint)
    better = endpoint["better"]
    confidence = config.evaluation.confidence
    how: dict[str, Any] = {
        "better": better,
        "confidence": confidence,
        "draws": config.plan.resamples,
        "seed": config.plan.seed,
    }
    fits = forecast.fit(runs, **how)
    levels = sorted({run.flops for run in runs})
    held = [forecast.hold_out(runs, budgets=n, **how) for n in (1, 2) if len(levels) - n >= 3]
    widening = _widening(held)
    case = config.budget.teacher
    grid = np.union1d(np.geomspace(levels[0], max(budgets), GRID), budgets)
    known = [
        one for one in CASES if one in ("nothing", "inference") or cost_by_recipe(config).known
    ]
    return {
        "pilot": {
            "directory": config.plan.pilot,
            "digest": digest(dict(pilot)),
            "budgets": levels,
            "runs": [asdict(run) for run in runs],
            "endpoint": endpoint,
            "reference_losses": _same_losses(pilot),
        },
        "fits": {
            name: _fit(
                fits.arms[name], spending[name], budgets, grid, case, widening.get(name, 1.0)
            )
            for name in fits.arms
        },
        "held_out": [_held_out(one) for one in held],
        "widening": widening,
        "contests": {
            one: [_contest(c) for c in _contests(config, fits, spending, grid, one, widening)]
            for one in known
        },
    }


def _same_losses(pilot: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The reference losses of the pilot's text; None where its studies had several, or none."""
    found = [group.get("reference_losses") for group in pilot["groups"]]
    return found[0] if all(losses == found[0] for losses in found) else None


def _contests(
    config: Config,
    fits: forecast.Fits,
    spending: Mapping[str, Spending],
    grid: Array,
    case: str,
    widening: Mapping[str, float],
) -> tuple[forecast.PairwiseComparison, ...]:
    """Pairs of arms over the budgets that every arm can spend in this case."""
    affordable = np.array(
        [flops for flops in grid if all(spending[arm].affords(flops, case) for arm in fits.arms)]
    )
    if len(affordable) < 2:
        return ()
    return forecast.compare_arms(
        fits,
        affordable,
        lambda arm, flops: spending[arm].point(flops, case),
        margin=config.evaluation.margin,
        widen={
            (a, b): widening.get(f"{a} - {b}", 1.0) for a, b in itertools.permutations(fits.arms, 2)
        },
    )


def _widening(held: Sequence[forecast.CrossValidation]) -> dict[str, float]:
    """Arm, or `a - b` -> by how much an interval is widened: as the held-out budgets show that it
    has to be."""
    found: dict[str, float] = {}
    for one in itertools.chain.from_iterable((*check.arms, *check.differences) for check in held):
        found[one.name] = max(found.get(one.name, 1.0), one.widening)
    return found


def _budgets(config: Config, runs: Sequence[forecast.PilotRun]) -> list[float]:
    if config.plan.budgets:
        return sorted(config.plan.budgets)
    largest = max((run.flops for run in runs), default=Budget.of(config.budget).amount)
    if not runs and config.budget.kind != "flops":
        raise InputError(
            f"plan.budgets is empty and budget.{config.budget.kind} set, expected FLOPs to "
            "forecast for"
        )
    return [times * largest for times in BEYOND]


def _fit(
    fit: forecast.Fit,
    spending: Spending,
    budgets: Sequence[float],
    grid: Array,
    case: str,
    widening: float,
) -> dict[str, Any]:
    """An arm's law and what it says; intervals of what it says are widened."""

    def predicted(flops: Sequence[float] | Array) -> list[dict[str, float]]:
        asked = np.array([one for one in flops if spending.affords(one, case)])
        if not len(asked):
            return []
        point = spending.point(asked, case)
        law = fit.predict(point.parameters, point.tokens, point.unique).widened(widening)
        columns = zip(asked, law.mean, law.low, law.high, strict=True)
        return [
            dict(zip(("flops", "mean", "low", "high"), map(float, row), strict=True))
            for row in columns
        ]

    return {
        "formula": fit.formula,
        "reason": fit.reason,
        "parameters": {
            name: {"value": one.value, "low": _finite(one.low), "high": _finite(one.high)}
            for name, one in fit.parameters.items()
        },
        "residual_sd": fit.residual_sd,
        "shift_sd": fit.shift_sd,
        "cautions": list(fit.cautions),
        "usable": fit.usable,
        "widening": widening,
        "predictions": predicted(budgets),
        "curve": predicted(grid),
    }


def _finite(end: float) -> float | None:
    """JSON has no infinity: an end that is open has none."""
    return end if np.isfinite(end) else None


def _held_out(found: forecast.CrossValidation) -> dict[str, Any]:
    rows: dict[str, Any] = {"budgets": found.budgets}
    for name in ("arms", "differences"):
        rows[name] = [
            {**asdict(one), "relative": one.relative, "widening": one.widening}
            for one in getattr(found, name)
        ]
    return rows


def _contest(found: forecast.PairwiseComparison) -> dict[str, Any]:
    crossing = asdict(found.crossing)
    for name in ("low", "high"):
        crossing[name] = _finite(crossing[name]) or None  # 0 is open, too
    return {
        "a": found.a,
        "b": found.b,
        "points": [
            {
                "flops": float(f),
                "mean": float(m),
                "low": float(low),
                "high": float(high),
                "verdict": verdict,
            }
            for f, m, low, high, verdict in zip(
                found.flops, found.mean, found.low, found.high, found.verdicts, strict=True
            )
        ],
        "ranges": [asdict(one) for one in found.ranges],
        "crossing": crossing,
    }
