"""Scaling laws fitted to a user's own pilot runs, arm by arm, with intervals from one joint
bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdjax.errors import InputError
from kdjax.forecast import bootstrap, forms, robust
from kdjax.forecast.laws import effective_tokens
from kdjax.forecast.runs import ArmRuns, Run, tabulate

Array = NDArray[np.float64]
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Point:
    """Where a law is asked: a student of `parameters` (non-embedding) sees `tokens`, `unique` of
    them different."""

    parameters: ArrayLike
    tokens: ArrayLike
    unique: ArrayLike = np.inf


@dataclass(frozen=True)
class Estimate:
    """A parameter with its interval and its `[draws]`."""

    value: float
    low: float
    high: float
    draws: Array


@dataclass(frozen=True)
class Prediction:
    """Expected value over seeds at m points, in the endpoint's unit.

    Attributes:
        mean, low, high: `[m]`: prediction and ends of its pointwise interval.
        draws: `[draws, m]`.
    """

    mean: Array
    low: Array
    high: Array
    draws: Array

    def widened(self, times: float) -> Prediction:
        """The same with its interval, and its draws, so many times as far from the mean."""
        low, high, draws = (
            self.mean + times * (x - self.mean) for x in (self.low, self.high, self.draws)
        )
        return Prediction(self.mean, low, high, draws)


@dataclass(frozen=True)
class Fit:
    """The law of one arm.

    Attributes:
        arm: its name.
        formula: the law, in N (parameters) and D' (effective tokens).
        reason: why this form.
        parameters: symbol -> estimate.
        residual_sd: how much runs of one seed scatter around the law, in the endpoint's unit.
        shift_sd: how much seeds differ in their means over budgets; 0 where there is one seed.
        cautions: what to know before trusting it, one sentence each.
        usable: whether the law may be extrapolated; where it is not, values get worse with more
            tokens.
        sizes: smallest and largest N of the runs.
        tokens: smallest and largest D' of the runs.
        confidence: nominal coverage of every interval.
    """

    arm: str
    formula: str
    reason: str
    parameters: Mapping[str, Estimate]
    residual_sd: float
    shift_sd: float
    cautions: tuple[str, ...]
    usable: bool
    sizes: tuple[float, float]
    tokens: tuple[float, float]
    confidence: float
    _model: robust.Model
    _theta: Array
    _draws: Array
    _fresh: Array
    _sign: float

    def predict(
        self, parameters: ArrayLike, tokens: ArrayLike, unique: ArrayLike = np.inf
    ) -> Prediction:
        """The law's value at new points, with its interval.

        Args:
            parameters: N; the three broadcast to `[m]`.
            tokens: D, tokens seen, repeats included.
            unique: different tokens among them.

        Raises:
            InputError: a count that is not above 0; another size than that of the runs, where they
                had one.
        """
        effective = np.atleast_1d(effective_tokens(tokens, unique))
        sizes, effective = np.broadcast_arrays(
            np.atleast_1d(np.asarray(parameters, np.float64)), effective
        )
        lowest, highest = self.sizes
        if not (sizes > 0).all():
            raise InputError(
                f"forecast: arm {self.arm!r}: parameters are {sizes}, expected numbers above 0"
            )
        if lowest == highest and not np.allclose(sizes, lowest):
            raise InputError(
                f"forecast: arm {self.arm!r} was fitted at {lowest:g} parameters only, found "
                f"{sizes.max():g}: "
                "expected the same size, or pilot runs of at least 3 sizes"
            )
        value = self._sign * self._model.at(self._theta, sizes, effective)
        return _interval(
            value, self._sign * self._model.at(self._draws, sizes, effective), self.confidence
        )

    def fresh_noise(self, runs: int) -> Array:
        """`[draws]` draws of the noise in the mean of `runs` new runs at a new budget, for the
        study's own seeds."""
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
        """Expected value of arm `a` less that of arm `b`, each at its own points, `[m]`.

        Raises:
            InputError: as for `Fit.predict`.
        """
        one = self.arms[a].predict(at_a.parameters, at_a.tokens, at_a.unique)
        two = self.arms[b].predict(at_b.parameters, at_b.tokens, at_b.unique)
        return _interval(one.mean - two.mean, one.draws - two.draws, self.confidence)


def fit(
    runs: Sequence[Run],
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
    budget cover at their nominal
    rate, or up to 5 points above it: the more, the fewer the seeds, as the spread of seeds and that
    of runs within a seed are studentised each for itself. In the full law predictions do the same;
    its single parameters fall up to 5
    points short. Intervals take the law for true: of a law that bends later they know nothing, and
    `hold_out` is the check there is.

    Args:
        runs: pilot runs of one endpoint.
        better: whether lower or higher values are better.
        best: the best value the endpoint can have, which E does not pass; by default 0 for lower, 1
            for higher.
        confidence: nominal coverage of the intervals.
        draws: number of bootstrap draws.
        seed: of the bootstrap.
        same_seeds: whether predictions are for the study's own seeds instead of for seeds at large.

    Raises:
        InputError: runs that cannot be used (`tabulate`, `choose`), values beyond `best`, a
            confidence outside (0, 1), fewer than 100 draws.
    """
    if not 0 < confidence < 1:
        raise InputError(
            f"forecast: confidence is {confidence}, expected a number between 0 and 1, both "
            "excluded"
        )
    if draws < 100:
        raise InputError(f"forecast: {draws} draws, expected at least 100")
    study = tabulate(runs)
    sign = 1.0 if better == "lower" else -1.0
    floor = sign * (best if best is not None else 0.0 if better == "lower" else 1.0)
    for run in runs:
        if sign * run.value <= floor:
            raise InputError(
                f"forecast: arm {run.arm!r}, seed {run.seed}, budget {run.flops:g}: value is "
                f"{run.value:g}, expected "
                f"one {'above' if better == 'lower' else 'below'} the best possible, "
                f"{sign * floor:g}"
            )
    tables = study.arms
    chosen = {arm: forms.choose(arm, table, better, floor) for arm, table in tables.items()}
    found = {
        arm: robust.huber(chosen[arm].model, sign * table.values, table.seed)
        for arm, table in tables.items()
    }
    sampled = bootstrap.joint(
        np.random.default_rng(seed),
        draws,
        [form.model for form in chosen.values()],
        list(found.values()),
        [table.seed for table in tables.values()],
        [table.cell for table in tables.values()],
        [table.study_seed for table in tables.values()],
        study.cell_seed,
        same_seeds=same_seeds,
    )
    arms = {}
    for i, (arm, table) in enumerate(tables.items()):
        spread = float(sampled.residual_sd[i]), float(sampled.shift_sd[i])
        arms[arm] = _assemble(
            arm,
            table,
            chosen[arm],
            found[arm],
            sampled.theta[i],
            sampled.fresh[i],
            spread,
            sign,
            confidence,
        )
    return Fits(arms, better, confidence)


def _assemble(
    arm: str,
    table: ArmRuns,
    form: forms.Form,
    found: robust.RobustFit,
    theta: Array,
    fresh: Array,
    spread: tuple[float, float],
    sign: float,
    confidence: float,
) -> Fit:
    y = sign * table.values
    values = form.model.named(found.theta)
    sampled = form.model.named(theta)
    estimates = {}
    for name, value in values.items():
        flip = sign if name == "E" else 1.0
        found_at = _interval(flip * np.atleast_1d(value), flip * sampled[name][:, None], confidence)
        mean, low, high = (float(end[0]) for end in (found_at.mean, found_at.low, found_at.high))
        estimates[name] = Estimate(mean, low, high, flip * sampled[name])
    return Fit(
        arm=arm,
        formula=form.formula,
        reason=form.reason,
        parameters=estimates,
        residual_sd=spread[0],
        shift_sd=spread[1],
        cautions=forms.cautions(form, found, table, y, theta, confidence),
        usable=not forms.worsens(table, y, confidence),
        sizes=(float(table.parameters.min()), float(table.parameters.max())),
        tokens=(float(table.tokens.min()), float(table.tokens.max())),
        confidence=confidence,
        _model=form.model,
        _theta=found.theta,
        _draws=theta,
        _fresh=sign * fresh,
        _sign=sign,
    )


def _interval(value: Array, draws: Array, confidence: float) -> Prediction:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    # A bound can hold the draws on one side of the estimate; the interval then reaches to the
    # estimate.
    return Prediction(value, np.minimum(low, value), np.maximum(high, value), draws)
