"""Which law an arm's runs can carry, and what its reader must be warned of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdjax.errors import InputError
from kdjax.forecast.pilot_runs import ArmRuns
from kdjax.forecast.powerlaw import PowerLaw
from kdjax.forecast.robust import Law, RobustFit, degrees_of_freedom
from kdjax.forecast.surface import Surface

Array = NDArray[np.float64]

# Effective tokens closer than this in logarithm are one budget.
_SAME_BUDGET = 0.01
# A lack of fit with a p-value below this is reported.
_MISFIT_P_VALUE = 0.01


@dataclass(frozen=True)
class Form:
    """A law chosen for an arm.

    Attributes:
        law: the law at the arm's runs.
        formula: the law in symbols.
        reason: sentence on why the runs carry this law.
    """

    law: Law
    formula: str
    reason: str


def choose(arm: str, runs: ArmRuns, better: str, floor: float) -> Form:
    """Choose the richest law that the runs can carry.

    One size: y = E + K * D'**-k, from three budgets on. At least three sizes and three budgets: the
    full law, with g from twelve different points on (two for each parameter) and g = 1 from seven
    on.

    Args:
        arm: name of the arm, for messages.
        runs: runs of the arm.
        better: whether lower or higher values are better.
        floor: the best loss there can be.

    Raises:
        InputError: too few budgets, sizes or runs for either law.
    """
    # What the runs vary in
    sizes = len(np.unique(runs.parameters))
    budgets = len(_merged(np.log(runs.tokens)))
    points = len(np.unique(_points(runs)))
    sign = "+" if better == "lower" else "-"
    design = f"{sizes} sizes and {budgets} budgets at {points} different points"

    # The richest law that so many points determine
    if sizes == 1:
        form = Form(
            PowerLaw(runs.tokens, floor),
            f"E {sign} K * D'^-k",
            f"one student size: its {budgets} budgets show the effect of tokens only",
        )
        enough = budgets >= 3
    elif points >= 12:
        form = Form(
            Surface(runs.parameters, runs.tokens, floor, outer=True),
            f"E {sign} (A/N^a + B/D'^b)^g",
            f"{design} carry six parameters",
        )
        enough = sizes >= 3 and budgets >= 3
    else:
        form = Form(
            Surface(runs.parameters, runs.tokens, floor, outer=False),
            f"E {sign} (A/N^a + B/D'^b)",
            f"{design}: too few for the exponent g, which is 1",
        )
        enough = sizes >= 3 and budgets >= 3 and points >= 7

    # Noise needs runs to spare.
    if not enough or degrees_of_freedom(form.law, runs.seed) < 1:
        raise InputError(
            f"forecast: arm {arm!r} has {len(runs.values)} runs of {sizes} size(s) at {budgets} "
            "budget(s), expected one size at 3 or more budgets, or 3 or more sizes at 3 or more "
            "budgets, with more runs than parameters"
        )
    return form


def worsens(runs: ArmRuns, y: Array, confidence: float) -> bool:
    """Return whether values at one size get worse with tokens beyond noise: no law here does.

    A one-sided t test of the straight line in log tokens, with one shift for each seed.

    Args:
        runs: runs of the arm.
        y: `[n]`: values, lower is better.
        confidence: coverage of the two-sided interval whose upper end is tested.
    """
    if len(np.unique(runs.parameters)) > 1:
        return False
    seeds = (runs.seed[:, None] == np.arange(runs.seed.max() + 1)).astype(np.float64)
    columns = np.column_stack([np.log(runs.tokens), seeds])
    coefficients, _, rank, _ = np.linalg.lstsq(columns, y, rcond=None)
    df = len(y) - int(rank)
    variance = ((y - columns @ coefficients) ** 2).sum() / df
    # The slope is the first coefficient; its standard error from the normal equations.
    error = np.sqrt(variance * np.linalg.pinv(columns.T @ columns)[0, 0])
    return bool(coefficients[0] > stats.t.ppf((1 + confidence) / 2, df) * error)


def misfit(form: Form, fit: RobustFit, runs: ArmRuns, y: Array) -> float | None:
    """Compute the p-value of the lack-of-fit F test.

    The scatter of points around the law is held against the scatter of seeds at a point.

    Args:
        form: law of the arm.
        fit: fit of the law.
        runs: runs of the arm.
        y: `[n]`: values, lower is better.

    Returns:
        The p-value; None where no point has two seeds, or the law has as many parameters as there
        are points.
    """
    residuals = y - form.law.values(fit.theta) - fit.shifts[runs.seed]
    point = _points(runs)
    groups = np.unique(point)
    lack_df = len(groups) - form.law.size
    pure_df = len(y) - len(groups) - int(runs.seed.max())
    if lack_df < 1 or pure_df < 1:
        return None
    means = np.array([residuals[point == group].mean() for group in groups])
    counts = np.array([(point == group).sum() for group in groups])
    between = (counts * means**2).sum()
    within = max((residuals**2).sum() - between, 1e-300)
    return float(stats.f.sf(between / lack_df / (within / pure_df), lack_df, pure_df))


def cautions(
    form: Form, fit: RobustFit, runs: ArmRuns, y: Array, draws: Array, confidence: float
) -> tuple[str, ...]:
    """Return cautions for readers of the fit, one sentence each.

    Args:
        form: law of the arm.
        fit: fit of the law.
        runs: runs of the arm.
        y: `[n]`: values, lower is better.
        draws: `[draws, size]`: bootstrap draws of the parameters.
        confidence: nominal coverage of the intervals.
    """
    # What no law here describes
    notes = []
    if worsens(runs, y, confidence):
        notes.append(
            "values get worse with more tokens: no law here describes that, and nothing is "
            "forecast from it"
        )

    # One size: how well its budgets determine the effect of tokens
    tail = (1 - confidence) / 2
    if isinstance(form.law, PowerLaw):
        ends = np.array([runs.tokens.min(), runs.tokens.max()])
        first, last = form.law.at(draws, runs.parameters[:2], ends).T
        k = np.quantile(draws[:, 2], [tail, 1 - tail])
        if np.quantile(first - last, tail) <= 0:
            notes.append(
                "no improvement with tokens beyond noise: K may be 0, and then k means nothing"
            )
        elif k[1] > 20 * k[0]:
            notes.append(
                f"the exponent is hardly determined: k lies between {k[0]:.2g} and {k[1]:.2g}"
            )
        if ends[1] < 3 * ends[0]:
            notes.append(
                f"the budgets span a factor of {ends[1] / ends[0]:.2g} in tokens, less than 3"
            )

    # What intervals and the fit leave out
    if runs.seed.max() == 0:
        notes.append("one seed: the intervals say nothing about other seeds")
    p_value = misfit(form, fit, runs, y)
    if p_value is not None and p_value < _MISFIT_P_VALUE:
        notes.append(
            f"the law misses the points by more than seeds differ (lack of fit, p = {p_value:.1g})"
        )
    return tuple(notes)


def _merged(logs: Array) -> Array:
    """Return one number for each group of nearly equal ones, ascending."""
    ordered = np.sort(logs)
    return np.asarray(ordered[np.concatenate([[True], np.diff(ordered) > _SAME_BUDGET])])


def _points(runs: ArmRuns) -> NDArray[np.intp]:
    """Return a number for each run, by its size and budget, `[n]`."""
    tokens = np.searchsorted(_merged(np.log(runs.tokens)), np.log(runs.tokens), side="right")
    sizes = np.searchsorted(np.unique(runs.parameters), runs.parameters)
    return np.asarray(sizes * (len(runs.tokens) + 1) + tokens)
