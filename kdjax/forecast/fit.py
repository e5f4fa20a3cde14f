"""Scaling laws fitted to pilot runs, arm by arm, with intervals from one joint bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdjax.errors import InputError
from kdjax.evaluation.statistics import Better
from kdjax.forecast import bootstrap, forms, robust
from kdjax.forecast.laws import effective_tokens
from kdjax.forecast.pilot_runs import PilotRun, tabulate

Array = NDArray[np.float64]

_DIRECTIONS = {"lower": (1.0, "above", 0.0), "higher": (-1.0, "below", 1.0)}
"""Sign that makes losses of values, on which side of the best value they lie, and that value."""


@dataclass(frozen=True)
class Point:
    """Where a law is evaluated.

    Attributes:
        parameters: non-embedding parameters of the student.
        tokens: tokens seen, repeats included.
        unique: different tokens among them.
    """

    parameters: ArrayLike
    tokens: ArrayLike
    unique: ArrayLike = np.inf


@dataclass(frozen=True)
class ParameterEstimate:
    """A parameter of a law, its interval, and its bootstrap draws `[draws]`."""

    value: float
    low: float
    high: float
    draws: Array


@dataclass(frozen=True)
class Prediction:
    """Expected value over seeds at m points, in the endpoint's unit.

    Attributes:
        mean, low, high: `[m]`: prediction and ends of its pointwise interval.
        draws: `[draws, m]`: bootstrap draws of the prediction.
    """

    mean: Array
    low: Array
    high: Array
    draws: Array

    def widened(self, times: float) -> Prediction:
        """Return the prediction with interval and draws so many times as far from the mean."""
        return Prediction(
            mean=self.mean,
            low=self.mean + times * (self.low - self.mean),
            high=self.mean + times * (self.high - self.mean),
            draws=self.mean + times * (self.draws - self.mean),
        )


@dataclass(frozen=True)
class Fit:
    """The law of one arm.

    Attributes:
        arm: name of the arm.
        formula: the law, in N (parameters) and D' (effective tokens).
        reason: sentence on why the law has this form.
        parameters: symbol -> estimate.
        residual_sd: standard deviation of one seed's runs around the law, in the endpoint's unit.
        shift_sd: standard deviation of the seeds' means over budgets; 0 where there is one seed.
        cautions: reasons to doubt the law, one sentence each.
        usable: whether the law may be extrapolated; not where values get worse with more tokens.
        sizes: smallest and largest N of the runs.
        tokens: smallest and largest D' of the runs.
        confidence: nominal coverage of every interval.
    """

    arm: str
    formula: str
    reason: str
    parameters: Mapping[str, ParameterEstimate]
    residual_sd: float
    shift_sd: float
    cautions: tuple[str, ...]
    usable: bool
    sizes: tuple[float, float]
    tokens: tuple[float, float]
    confidence: float
    _law: robust.Law
    _theta: Array
    _draws: Array
    _fresh: Array
    _sign: float

    def predict(
        self, parameters: ArrayLike, tokens: ArrayLike, unique: ArrayLike = np.inf
    ) -> Prediction:
        """Compute the law's value at new points, with its interval.

        Args:
            parameters: N; the three broadcast to `[m]`.
            tokens: D, tokens seen, repeats included.
            unique: different tokens among the tokens seen.

        Raises:
            InputError: a count that is not above 0; another size than that of the runs, where all
                runs had one.
        """
        effective = np.atleast_1d(effective_tokens(tokens, unique))
        at_least_1d = np.atleast_1d(np.asarray(parameters, np.float64))
        sizes, effective = np.broadcast_arrays(at_least_1d, effective)
        lowest, highest = self.sizes
        if not (sizes > 0).all():
            raise InputError(
                f"forecast: arm {self.arm!r}: parameters are {sizes}, expected numbers above 0"
            )
        if lowest == highest and not np.allclose(sizes, lowest):
            raise InputError(
                f"forecast: arm {self.arm!r} was fitted at {lowest:g} parameters only, found "
                f"{sizes.max():g}: expected the same size, or pilot runs of at least 3 sizes"
            )
        values = self._sign * self._law.at(self._theta, sizes, effective)
        draws = self._sign * self._law.at(self._draws, sizes, effective)
        return _interval(values, draws, self.confidence)

    def fresh_noise(self, runs: int) -> Array:
        """Scale the drawn noise, `[draws]`, to the mean of `runs` new runs of the study's seeds."""
        return np.asarray(self._fresh / np.sqrt(runs))


@dataclass(frozen=True)
class Fits:
    """Laws of all arms of a study, their draws paired.

    Attributes:
        arms: name -> fit.
        better: whether lower or higher values are better.
        confidence: nominal coverage of every interval.
    """

    arms: Mapping[str, Fit]
    better: Better
    confidence: float

    def difference(self, a: str, at_a: Point, b: str, at_b: Point) -> Prediction:
        """Predict the value of arm `a` less that of arm `b`, each at its own points, `[m]`.

        Args:
            a: the one arm.
            at_a: sizes and tokens at which `a` is predicted, `[m]`.
            b: the other arm.
            at_b: those at which `b` is predicted, `[m]`.

        Raises:
            InputError: points that `Fit.predict` refuses.
        """
        of_a = self.arms[a].predict(at_a.parameters, at_a.tokens, at_a.unique)
        of_b = self.arms[b].predict(at_b.parameters, at_b.tokens, at_b.unique)
        return _interval(of_a.mean - of_b.mean, of_a.draws - of_b.draws, self.confidence)


def fit(
    runs: Sequence[PilotRun],
    *,
    better: Better = "lower",
    best: float | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    same_seeds: bool = False,
) -> Fits:
    """Fit every arm's law to its pilot runs (`forms.choose`, `robust.huber`, `bootstrap.joint`).

    Intervals are percentiles of the bootstrap. On simulated studies of 4 to 6 budgets by 3 to 5
    seeds, those of parameters and of predictions and differences up to ten times beyond the largest
    budget cover at their nominal rate, or up to 5 points above it: the more, the fewer the seeds,
    as the spread of seeds and that of runs within a seed are studentised each for itself. In the
    full law predictions do the same; its single parameters fall up to 5 points short. Intervals
    take the law for true: of a law that bends later they know nothing, and `hold_out` is the check
    there is.

    Args:
        runs: pilot runs of one endpoint.
        better: whether lower or higher values are better.
        best: the best value the endpoint can have, which E does not pass; by default 0 for lower, 1
            for higher.
        confidence: nominal coverage of the intervals.
        draws: number of bootstrap draws.
        seed: seed of the bootstrap.
        same_seeds: whether predictions are for the study's own seeds instead of for seeds at large.

    Raises:
        InputError: runs that cannot be used (`tabulate`, `choose`), values beyond `best`, a
            confidence outside (0, 1), fewer than 100 draws.
    """
    _check_options(confidence, draws)
    study = tabulate(runs)
    # Laws are fitted to losses: a score is turned round.
    sign, _, default_best = _DIRECTIONS[better]
    floor = sign * (default_best if best is None else best)
    _check_values(runs, better, floor)

    # The form of each arm's law, and its parameters
    chosen_forms = {}
    fitted_arms = []
    for arm, table in study.arms.items():
        form = forms.choose(arm, table, better, floor)
        robust_fit = robust.huber(form.law, sign * table.values, table.seed)
        chosen_forms[arm] = form
        fitted_arms.append(
            bootstrap.FittedArm(form.law, robust_fit, table.seed, table.cell, table.study_seed)
        )

    # All arms are drawn together, so that what pairing gains is in their differences.
    rng = np.random.default_rng(seed)
    draws_of_arms = bootstrap.joint(rng, draws, fitted_arms, study.cell_seed, same_seeds=same_seeds)
    arms = {}
    for (arm, form), fitted_arm, arm_draws in zip(
        chosen_forms.items(), fitted_arms, draws_of_arms, strict=True
    ):
        table = study.arms[arm]
        losses = sign * table.values
        theta = fitted_arm.fit.theta
        arms[arm] = Fit(
            arm=arm,
            formula=form.formula,
            reason=form.reason,
            parameters=_estimates(form.law, theta, arm_draws.theta, sign, confidence),
            residual_sd=float(arm_draws.residual_sd),
            shift_sd=float(arm_draws.shift_sd),
            cautions=forms.cautions(
                form, fitted_arm.fit, table, losses, arm_draws.theta, confidence
            ),
            usable=not forms.worsens(table, losses, confidence),
            sizes=(float(table.parameters.min()), float(table.parameters.max())),
            tokens=(float(table.tokens.min()), float(table.tokens.max())),
            confidence=confidence,
            _law=form.law,
            _theta=theta,
            _draws=arm_draws.theta,
            _fresh=sign * arm_draws.fresh,
            _sign=sign,
        )
    return Fits(arms, better, confidence)


def _check_options(confidence: float, draws: int) -> None:
    """Raise InputError where the confidence is no probability, or the draws are too few."""
    if not 0 < confidence < 1:
        raise InputError(
            f"forecast: confidence is {confidence}, expected a number between 0 and 1, both "
            "excluded"
        )
    if draws < 100:
        raise InputError(f"forecast: {draws} draws, expected at least 100")


def _check_values(runs: Sequence[PilotRun], better: Better, floor: float) -> None:
    """Raise InputError where a run's value is the best possible, or better.

    Args:
        runs: pilot runs of one endpoint.
        better: whether lower or higher values are better.
        floor: the best value there can be, turned round where higher is better.
    """
    sign, side, _ = _DIRECTIONS[better]
    for run in runs:
        if sign * run.value <= floor:
            raise InputError(
                f"forecast: arm {run.arm!r}, seed {run.seed}, budget {run.flops:g}: value is "
                f"{run.value:g}, expected one {side} the best possible, {sign * floor:g}"
            )


def _estimates(
    law: robust.Law, theta: Array, draws: Array, sign: float, confidence: float
) -> dict[str, ParameterEstimate]:
    """Return the law's parameters by symbol, each with its interval.

    Args:
        law: law of the arm.
        theta: `[size]`: fitted parameters.
        draws: `[draws, size]`: bootstrap draws of the parameters.
        sign: -1 where the law was fitted to turned scores: E is then turned back.
        confidence: nominal coverage of the intervals.
    """
    sampled = law.named(draws)
    estimates = {}
    for name, value in law.named(theta).items():
        flip = sign if name == "E" else 1.0
        values = flip * sampled[name]
        interval = _interval(flip * np.atleast_1d(value), values[:, None], confidence)
        estimates[name] = ParameterEstimate(
            value=float(interval.mean[0]),
            low=float(interval.low[0]),
            high=float(interval.high[0]),
            draws=values,
        )
    return estimates


def _interval(value: Array, draws: Array, confidence: float) -> Prediction:
    """Compute the percentile interval of draws `[draws, m]` around a value `[m]`."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    # A bound can hold the draws on one side of the estimate; the interval then reaches to the
    # estimate.
    return Prediction(value, np.minimum(low, value), np.maximum(high, value), draws)
