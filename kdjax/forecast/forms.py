"""Which law an arm's runs can carry, and what its reader must be warned of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdjax.errors import InputError
from kdjax.forecast.powerlaw import PowerLaw
from kdjax.forecast.robust import Model, RobustFit, degrees_of_freedom
from kdjax.forecast.runs import ArmRuns
from kdjax.forecast.surface import Surface

Array = NDArray[np.float64]

_SAME = 0.01  # effective tokens closer than this in logarithm are one budget
_DOUBT = 0.01  # significance at which misfit is reported


@dataclass(frozen=True)
class Form:
    """A law chosen for an arm.

    Attributes:
        model: the law at the arm's runs.
        formula: as a reader writes it.
        reason: why this one.
    """

    model: Model
    formula: str
    reason: str


def choose(arm: str, runs: ArmRuns, better: str, floor: float) -> Form:
    """The richest law that the runs can carry.

    One size: y = E + K * D'**-k, from three budgets on. At least three sizes and three budgets: the
    full law, with g from twelve different points on (two for each parameter) and g = 1 from seven
    on.

    Raises:
        InputError: too few budgets, sizes or runs for either.
    """
    sizes = len(np.unique(runs.parameters))
    budgets = len(_merged(np.log(runs.tokens)))
    points = len(np.unique(_points(runs)))
    sign = "+" if better == "lower" else "-"
    model: Model
    if sizes == 1:
        model = PowerLaw(runs.tokens, floor)
        form = Form(
            model,
            f"E {sign} K * D'^-k",
            f"one student size: its {budgets} budgets show the effect of tokens only",
        )
        enough = budgets >= 3
    else:
        outer = points >= 12
        model = Surface(runs.parameters, runs.tokens, floor, outer)
        why = f"{sizes} sizes and {budgets} budgets at {points} different points"
        if outer:
            form = Form(model, f"E {sign} (A/N^a + B/D'^b)^g", f"{why} carry six parameters")
        else:
            form = Form(
                model,
                f"E {sign} (A/N^a + B/D'^b)",
                f"{why}: too few for the exponent g, which is 1",
            )
        enough = sizes >= 3 and budgets >= 3 and points >= 7
    if not enough or degrees_of_freedom(model, runs.seed) < 1:
        raise InputError(
            f"forecast: arm {arm!r} has {len(runs.values)} runs of {sizes} size(s) at {budgets} "
            "budget(s), expected "
            "one size at 3 or more budgets, or 3 or more sizes at 3 or more budgets, with more "
            "runs than parameters"
        )
    return form


def worsens(runs: ArmRuns, y: Array, confidence: float) -> bool:
    """Whether values at one size get worse with tokens beyond noise, which no law here describes.

    A one-sided t test of the straight line in log tokens, with one shift per seed.

    Args:
        runs: the arm's runs.
        y: `[n]`: values, lower is better.
        confidence: of the two-sided interval whose upper end is meant.
    """
    if len(np.unique(runs.parameters)) > 1:
        return False
    seeds = (runs.seed[:, None] == np.arange(runs.seed.max() + 1)).astype(np.float64)
    columns = np.column_stack([np.log(runs.tokens), seeds])
    found, _, rank, _ = np.linalg.lstsq(columns, y, rcond=None)
    df = len(y) - int(rank)
    spread = ((y - columns @ found) ** 2).sum() / df
    error = np.sqrt(spread * np.linalg.pinv(columns.T @ columns)[0, 0])
    return bool(found[0] > stats.t.ppf((1 + confidence) / 2, df) * error)


def misfit(form: Form, fit: RobustFit, runs: ArmRuns, y: Array) -> float | None:
    """Significance of the lack-of-fit F test: scatter of points around the law against scatter of
    seeds at a point.

    None where no point has two seeds or the law has as many parameters as there are points.
    """
    left = y - form.model.values(fit.theta) - fit.shifts[runs.seed]
    point = _points(runs)
    groups = np.unique(point)
    lack = len(groups) - form.model.size
    pure = len(y) - len(groups) - int(runs.seed.max())
    if lack < 1 or pure < 1:
        return None
    means = np.array([left[point == group].mean() for group in groups])
    counts = np.array([(point == group).sum() for group in groups])
    between = (counts * means**2).sum()
    within = max((left**2).sum() - between, 1e-300)
    return float(stats.f.sf(between / lack / (within / pure), lack, pure))


def cautions(
    form: Form, fit: RobustFit, runs: ArmRuns, y: Array, draws: Array, confidence: float
) -> tuple[str, ...]:
    """What a reader of the fit must know, one sentence each.

    Args:
        form, fit, runs: the arm's.
        y: `[n]`: values, lower is better.
        draws: `[draws, size]`: bootstrap parameters.
        confidence: of the intervals.
    """
    notes = []
    if worsens(runs, y, confidence):
        notes.append(
            "values get worse with more tokens: no law here describes that, and nothing is "
            "forecast from it"
        )
    tail = (1 - confidence) / 2
    if isinstance(form.model, PowerLaw):
        ends = np.array([runs.tokens.min(), runs.tokens.max()])
        first, last = form.model.at(draws, runs.parameters[:2], ends).T
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
    if runs.seed.max() == 0:
        notes.append("one seed: the intervals say nothing about other seeds")
    doubt = misfit(form, fit, runs, y)
    if doubt is not None and doubt < _DOUBT:
        notes.append(
            f"the law misses the points by more than seeds differ (lack of fit, p = {doubt:.1g})"
        )
    return tuple(notes)


def _merged(logs: Array) -> Array:
    """One number for each group of nearly equal ones."""
    ordered = np.sort(logs)
    return np.asarray(ordered[np.concatenate([[True], np.diff(ordered) > _SAME])])


def _points(runs: ArmRuns) -> NDArray[np.intp]:
    """`[n]`: index of each run's (size, budget)."""
    tokens = np.searchsorted(_merged(np.log(runs.tokens)), np.log(runs.tokens), side="right")
    sizes = np.searchsorted(np.unique(runs.parameters), runs.parameters)
    return np.asarray(sizes * (len(runs.tokens) + 1) + tokens)
