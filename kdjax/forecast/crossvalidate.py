"""How wrong the fit would have been: the largest budgets held out, and predicted from the rest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.errors import InputError
from kdjax.evaluation.statistics import Better
from kdjax.forecast.fit import Fits, fit
from kdjax.forecast.pilot_runs import PilotRun

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutPrediction:
    """A prediction at a budget that the fit had not seen, beside the observed mean.

    Attributes:
        name: name of the arm, or `a - b` for the difference of two arms.
        flops: held-out budget, in FLOPs.
        parameters: number of the student's parameters without embeddings.
        predicted, low, high: prediction for the held-out mean, in the endpoint's unit; the interval
            has the noise of the held-out runs in it.
        observed: mean over the held-out seeds; for a difference, over the shared ones.
        error: predicted - observed.
        noise: standard deviation over seeds of the held-out values or their paired differences;
            None for one seed.
        covered: whether the interval holds `observed`.
    """

    name: str
    flops: float
    parameters: float
    predicted: float
    low: float
    high: float
    observed: float
    error: float
    noise: float | None
    covered: bool

    @property
    def relative(self) -> float | None:
        """Return the size of the error in standard deviations over seeds; None without noise."""
        if not self.noise:
            return None
        return abs(self.error) / self.noise

    @property
    def widening(self) -> float:
        """Return the factor that widens the interval until it holds `observed`; 1 if it does."""
        if self.covered:
            return 1.0
        end = self.high if self.observed > self.predicted else self.low
        return abs(self.error) / max(abs(end - self.predicted), 1e-12)


@dataclass(frozen=True)
class CrossValidation:
    """Predictions of the largest budgets of a study from the others.

    Attributes:
        budgets: number of budgets held out.
        arms: predictions of each arm.
        differences: predictions of the difference of each pair of arms.
    """

    budgets: int
    arms: tuple[HeldOutPrediction, ...]
    differences: tuple[HeldOutPrediction, ...]


def hold_out(
    runs: Sequence[PilotRun],
    *,
    budgets: int = 1,
    better: Better = "lower",
    best: float | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> CrossValidation:
    """Fit every arm without the largest budgets, and predict the means there.

    Args:
        runs: pilot runs of one endpoint.
        budgets: number of the largest budgets to hold out.
        better: whether lower or higher values are better.
        best: best value that a law may reach; None: it is fitted.
        confidence: confidence of the intervals.
        draws: number of draws of the bootstrap.
        seed: seed of the draws.

    Raises:
        InputError: fewer than one budget held out, or too few left to fit (three for one size; see
            `choose`).
    """
    levels = sorted({run.flops for run in runs})
    if not 1 <= budgets <= len(levels) - 3:
        raise InputError(
            f"forecast: {budgets} of {len(levels)} budgets to hold out, expected at least 1 and at "
            "least 3 left to fit"
        )

    # Fit what is left, with seeds paired as they are in the whole.
    largest = levels[-budgets:]
    rest = [run for run in runs if run.flops not in largest]
    fits = fit(
        rest,
        better=better,
        best=best,
        confidence=confidence,
        draws=draws,
        seed=seed,
        same_seeds=True,
    )

    # The held-out runs of each budget and size, by arm and seed.
    points: dict[tuple[float, float], dict[str, dict[int, PilotRun]]] = {}
    for run in runs:
        if run.flops in largest:
            by_arm = points.setdefault((run.flops, run.parameters), {})
            by_arm.setdefault(run.arm, {})[run.seed] = run

    # Each arm, and each pair of arms that share seeds, at each of these
    arms = []
    differences = []
    for (flops, parameters), by_arm in sorted(points.items(), key=lambda item: item[0]):
        present = [arm for arm in fits.arms if arm in by_arm]
        for arm in present:
            arms.append(_compare(fits, flops, parameters, {arm: 1.0}, by_arm))
        for a, b in itertools.combinations(present, 2):
            if by_arm[a].keys() & by_arm[b].keys():
                pair = {a: 1.0, b: -1.0}
                differences.append(_compare(fits, flops, parameters, pair, by_arm))
    return CrossValidation(budgets, tuple(arms), tuple(differences))


def _compare(
    fits: Fits,
    flops: float,
    parameters: float,
    signs: Mapping[str, float],
    runs: Mapping[str, Mapping[int, PilotRun]],
) -> HeldOutPrediction:
    """Predict a held-out mean, or a difference of two, and compare it with the observed one.

    Args:
        fits: laws fitted to the smaller budgets.
        flops: held-out budget, in FLOPs.
        parameters: number of the student's parameters without embeddings.
        signs: the arm with 1.0; for a difference the other one with -1.0.
        runs: arm -> seed -> held-out run.
    """
    seeds = sorted(set.intersection(*(set(runs[arm]) for arm in signs)))
    values = np.zeros(len(seeds))
    predicted = 0.0
    draws = np.zeros(1)
    for arm, sign in signs.items():
        shared = [runs[arm][seed] for seed in seeds]
        values = values + sign * np.array([run.value for run in shared])
        # Runs of one arm and budget see the same tokens, but for a step.
        tokens = np.mean([run.tokens for run in shared])
        unique = np.mean([run.unique for run in shared])
        prediction = fits.arms[arm].predict(parameters, tokens, unique)
        predicted += sign * float(prediction.mean[0])
        draws = draws + sign * (prediction.draws[:, 0] + fits.arms[arm].fresh_noise(len(seeds)))
    tail = (1 - fits.confidence) / 2
    low, high = map(float, np.quantile(draws, [tail, 1 - tail]))
    # A bound on the law can hold all draws on one side of the prediction.
    low = min(low, predicted)
    high = max(high, predicted)
    observed = float(values.mean())
    return HeldOutPrediction(
        name=" - ".join(signs),
        flops=float(flops),
        parameters=float(parameters),
        predicted=predicted,
        low=low,
        high=high,
        observed=observed,
        error=predicted - observed,
        noise=float(values.std(ddof=1)) if len(values) > 1 else None,
        covered=low <= observed <= high,
    )
