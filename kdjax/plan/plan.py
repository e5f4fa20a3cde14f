"""`kdjax plan`: forecasts at budgets nobody has spent, from pilot runs and published laws."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from kdjax import forecast
from kdjax.arms.baseline import baseline_arm
from kdjax.arms.recipe_arms import arms_of, batch_shape_of
from kdjax.arms.teacher_cost import cost_by_recipe
from kdjax.budget.accounting import CASES, Budget
from kdjax.config import Config, plain, to_dict
from kdjax.errors import InputError
from kdjax.plan import prior, report, table
from kdjax.plan.pilot import endpoint_of, pilot_of, runs_of, text_of
from kdjax.plan.schema import (
    PLAN,
    ComparedAt,
    CrossingForecast,
    FittedLaw,
    Forecast,
    ForecastComparison,
    ForecastRange,
    HeldOutCheck,
    HeldOutRow,
    LawParameter,
    Pilot,
    Plan,
    PlannedArm,
)
from kdjax.plan.spending import Spending
from kdjax.storage import locks
from kdjax.storage.files import digest, write_json
from kdjax.storage.typed_json import to_plain
from kdjax.study.compare import PLAIN_WIDTH
from kdjax.study.machine import versions
from kdjax.sweep.schema import SweepResults
from kdjax.training.phase_price import price

BEYOND = (1, 3, 10, 30, 100)
"""Multiples of the largest budget spent that are forecast where the recipe names no budgets."""
FEWEST_TO_FIT = 3
"""Fewest budgets to which a law is fitted."""
GRID = 60
"""Number of budgets, evenly apart in logarithm, at which pairs of arms are compared."""

Array = NDArray[np.float64]


def plan(config: Config, out: Path) -> Plan:
    """Forecast what each arm would reach at budgets nobody has spent.

    Args:
        config: recipe; `plan.pilot` names the sweep whose runs are fitted.
        out: directory that gets `plan.json` and `plan.html`.

    Raises:
        InputError: a pilot that is not there, or not this recipe's; too few budgets to fit.
    """
    with locks.hold(out):
        content = forecasts(config)
        write_json(out / PLAN, to_plain(content))
        report.write(content, out / "plan.html")
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(width=width).print(table.summary(content))
    print(f"report: {out / 'plan.html'}")
    return content


def forecasts(config: Config) -> Plan:
    """Compute the content of `plan.json`.

    Args:
        config: recipe of the plan.

    Raises:
        InputError: a pilot that is not there, or not this recipe's; too few budgets to fit.
    """
    arms = arms_of(config)
    batch_shape = batch_shape_of(config)
    pilot = pilot_of(config)
    runs = runs_of(config, pilot) if pilot else []
    budgets = _budgets(config, runs)

    # What each arm buys follows from its price and the text.
    fill, unique = text_of(config, pilot)
    spending = {}
    for name, arm in arms.items():
        prices = tuple(price(phase, phase.batch_shape(batch_shape)) for phase in arm.phases)
        spending[name] = Spending(arm, prices, config, fill, unique)

    # Prices and published laws are known without a pilot.
    case = config.budget.teacher
    values = plain(to_dict(config))
    needs_teacher = {name: arm.needs_teacher for name, arm in arms.items()}
    without_pilot = Plan(
        **versions(),
        config=values,
        config_digest=digest(values),
        endpoint=config.plan.endpoint,
        case=case,
        budgets=tuple(budgets),
        unique_tokens=_finite(unique),
        baseline_arm=baseline_arm(config.evaluation.baseline, needs_teacher),
        arms={name: _planned(arm, budgets, case) for name, arm in spending.items()},
        prior=prior.published_losses(config, spending, budgets, case),
    )
    if pilot is None:
        return without_pilot
    return _fitted(without_pilot, config, pilot, runs, spending)


def _planned(spending: Spending, budgets: Sequence[float], case: str) -> PlannedArm:
    """Return an arm's size, the prices of its phases, and what each budget buys."""
    return PlannedArm(
        spending.parameters,
        spending.prices,
        tuple(spending.bought(flops, case) for flops in budgets),
    )


def _fitted(
    without_pilot: Plan,
    config: Config,
    pilot: SweepResults,
    runs: Sequence[forecast.PilotRun],
    spending: Mapping[str, Spending],
) -> Plan:
    """Fit the pilot's runs and add to the plan what they say."""
    budgets = without_pilot.budgets
    case = without_pilot.case
    endpoint = endpoint_of(config, pilot)
    options: dict[str, Any] = {
        "better": endpoint.better,
        "confidence": config.evaluation.confidence,
        "draws": config.plan.resamples,
        "seed": config.plan.seed,
    }
    fits = forecast.fit(runs, **options)

    # Where the fit without the largest budgets misses them, intervals are widened as much.
    pilot_budgets = sorted({run.flops for run in runs})
    checks = [
        forecast.hold_out(runs, budgets=n, **options)
        for n in (1, 2)
        if len(pilot_budgets) - n >= FEWEST_TO_FIT
    ]
    widening = _widening(checks)

    # Laws are drawn and compared on a grid that has the budgets asked for among it.
    grid = np.union1d(np.geomspace(pilot_budgets[0], max(budgets), GRID), budgets)
    laws = {}
    for name, fit in fits.arms.items():
        laws[name] = _law(fit, spending[name], budgets, grid, case, widening.get(name, 1.0))

    # A case in which nobody knows what the teacher's training costs compares nothing.
    margin = config.evaluation.margin_of(endpoint.scale)
    comparisons = {}
    for payers, accounts in CASES.items():
        if "teacher_training" not in accounts or cost_by_recipe(config).known:
            compared = _compared(margin, fits, spending, grid, payers, widening)
            comparisons[payers] = tuple(_comparison(pair) for pair in compared)

    # Studies of several texts have no losses of the text in common.
    losses = [group.ngram_losses for group in pilot.groups]
    shared_losses = losses[0] if losses.count(losses[0]) == len(losses) else None
    return replace(
        without_pilot,
        pilot=Pilot(
            directory=config.plan.pilot,
            digest=digest(to_plain(pilot)),
            budgets=tuple(pilot_budgets),
            runs=tuple(runs),
            endpoint=endpoint,
            ngram_losses=shared_losses,
        ),
        fits=laws,
        held_out=tuple(_check(check) for check in checks),
        widening=widening,
        contests=comparisons,
    )


def _compared(
    margin: float,
    fits: forecast.Fits,
    spending: Mapping[str, Spending],
    grid: Array,
    case: str,
    widening: Mapping[str, float],
) -> tuple[forecast.PairwiseComparison, ...]:
    """Compare pairs of arms over the budgets that buy every arm a step in a case."""
    affordable = []
    for flops in grid:
        if all(spending[arm].affords(flops, case) for arm in fits.arms):
            affordable.append(flops)
    # A crossing takes two budgets to lie between.
    if len(affordable) < 2:
        return ()
    pairs = itertools.permutations(fits.arms, 2)
    return forecast.compare_arms(
        fits,
        np.array(affordable),
        lambda arm, flops: spending[arm].point(flops, case),
        margin=margin,
        widen={(a, b): widening.get(f"{a} - {b}", 1.0) for a, b in pairs},
    )


def _widening(checks: Sequence[forecast.CrossValidation]) -> dict[str, float]:
    """Return arm, or `a - b` -> by how much intervals are widened, as held-out budgets ask for."""
    # The check that missed most decides; an interval that held everything stays.
    widening: dict[str, float] = {}
    for check in checks:
        for row in (*check.arms, *check.differences):
            widening[row.name] = max(widening.get(row.name, 1.0), row.widening)
    return widening


def _budgets(config: Config, runs: Sequence[forecast.PilotRun]) -> list[float]:
    """Return the budgets that are forecast.

    Raises:
        InputError: the recipe names none, and nothing says how large they are in FLOPs.
    """
    if config.plan.budgets:
        return sorted(config.plan.budgets)
    if not runs and config.budget.kind != "flops":
        raise InputError(
            f"plan.budgets is empty and budget.{config.budget.kind} set, expected FLOPs to "
            "forecast for"
        )
    largest = max((run.flops for run in runs), default=Budget.from_config(config.budget).amount)
    return [times * largest for times in BEYOND]


def _law(
    fit: forecast.Fit,
    spending: Spending,
    budgets: Sequence[float],
    grid: Array,
    case: str,
    widening: float,
) -> FittedLaw:
    """Describe an arm's fitted law for plan.json; intervals of predictions are widened."""
    parameters = {}
    for name, estimate in fit.parameters.items():
        ends = (_finite(estimate.low), _finite(estimate.high))
        parameters[name] = LawParameter(estimate.value, *ends)
    return FittedLaw(
        formula=fit.formula,
        reason=fit.reason,
        parameters=parameters,
        residual_sd=fit.residual_sd,
        shift_sd=fit.shift_sd,
        cautions=fit.cautions,
        usable=fit.usable,
        widening=widening,
        predictions=_predictions(fit, spending, budgets, case, widening),
        curve=_predictions(fit, spending, grid.tolist(), case, widening),
    )


def _predictions(
    fit: forecast.Fit, spending: Spending, budgets: Sequence[float], case: str, widening: float
) -> tuple[Forecast, ...]:
    """Return a law's predictions at the budgets that buy the arm a step."""
    affordable = np.array([flops for flops in budgets if spending.affords(flops, case)])
    if not len(affordable):
        return ()
    point = spending.point(affordable, case)
    law = fit.predict(point.parameters, point.tokens, point.unique).widened(widening)
    columns = (affordable.tolist(), law.mean.tolist(), law.low.tolist(), law.high.tolist())
    return tuple(Forecast(*row) for row in zip(*columns, strict=True))


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold; None for infinity, which it has not."""
    if not np.isfinite(value):
        return None
    return value


def _check(check: forecast.CrossValidation) -> HeldOutCheck:
    """Convert a check on held-out budgets to the form that is stored."""
    return HeldOutCheck(
        check.budgets,
        tuple(_held_out(row) for row in check.arms),
        tuple(_held_out(row) for row in check.differences),
    )


def _held_out(row: forecast.HeldOutPrediction) -> HeldOutRow:
    """Return a prediction of a held-out budget with how far it is off."""
    return HeldOutRow(**asdict(row), relative=row.relative, widening=row.widening)


def _comparison(pair: forecast.PairwiseComparison) -> ForecastComparison:
    """Return two arms compared over budgets; 0 and infinity are open ends of a crossing."""
    columns = (pair.flops, pair.mean, pair.low, pair.high)
    # Column-wise in the forecast, and a row for each budget in the plan.
    rows = zip(*(column.tolist() for column in columns), pair.verdicts, strict=True)
    crossing = pair.crossing
    return ForecastComparison(
        pair.a,
        pair.b,
        points=tuple(ComparedAt(*row) for row in rows),
        ranges=tuple(ForecastRange(r.verdict, r.low, r.high) for r in pair.ranges),
        crossing=CrossingForecast(
            value=crossing.value,
            low=_finite(crossing.low) or None,
            high=_finite(crossing.high) or None,
            within=crossing.within,
            later=crossing.later,
        ),
    )
