"""How wrong the fit would have been: hold out the largest budgets, fit the rest, compare with what
was reached."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.errors import InputError
from kdjax.forecast.fit import Better, Fits, fit
from kdjax.forecast.runs import Run

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """One prediction of a budget that the fit had not seen.

    Attributes:
        name: the arm, or `a - b` for the difference of two.
        flops: the held-out budget.
        parameters: size of the student.
        predicted, low, high: prediction for the held-out mean, in the endpoint's unit; the interval
            has the noise of the held-out runs in it.
        observed: mean over the held-out seeds (for a difference, over those that both arms have).
        error: predicted - observed.
        noise: standard deviation of the held-out values over seeds (of their paired differences);
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
        """Size of the error in standard deviations over seeds; None where there is none."""
        return None if not self.noise else abs(self.error) / self.noise

    @property
    def widening(self) -> float:
        """How many times wider the interval would have to be to hold what was observed; 1 where it
        does."""
        if self.covered:
            return 1.0
        end = self.high if self.observed > self.predicted else self.low
        return abs(self.error) / max(abs(end - self.predicted), 1e-12)


@dataclass(frozen=True)
class CrossValidation:
    """What holding out the largest `budgets` budgets shows: `arms` one by one, and `differences` of
    every pair."""

    budgets: int
    arms: tuple[HeldOut, ...]
    differences: tuple[HeldOut, ...]


def hold_out(
    runs: Sequence[Run],
    *,
    budgets: int = 1,
    better: Better = "lower",
    best: float | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> CrossValidation:
    """Hold out the largest budgets of the study, fit every arm to the rest, and predict the
    held-out means.

    Args:
        runs: pilot runs of one endpoint.
        budgets: how many of the largest budgets to hold out.
        better, best, confidence, draws, seed: as for `fit`.

    Raises:
        InputError: fewer than one budget held out, or too few left to fit (three for one size; see
            `choose`).
    """
    levels = sorted({run.flops for run in runs})
    if not 1 <= budgets <= len(levels) - 3:
        raise InputError(
            f"forecast: {budgets} of {len(levels)} budgets to hold out, expected at least 1 and "
            "at least 3 left to fit"
        )
    held = [run for run in runs if run.flops in levels[-budgets:]]
    rest = [run for run in runs if run.flops not in levels[-budgets:]]
    fits = fit(
        rest,
        better=better,
        best=best,
        confidence=confidence,
        draws=draws,
        seed=seed,
        same_seeds=True,
    )
    points = sorted({(run.flops, run.parameters) for run in held})
    arms = []
    differences = []
    for flops, parameters in points:
        here = {
            arm: {
                run.seed: run
                for run in held
                if (run.arm, run.flops, run.parameters) == (arm, flops, parameters)
            }
            for arm in fits.arms
        }
        present = [arm for arm in here if here[arm]]
        for arm in present:
            arms.append(_compare(fits, flops, parameters, [(arm, 1.0)], here))
        for a, b in itertools.combinations(present, 2):
            if here[a].keys() & here[b].keys():
                differences.append(_compare(fits, flops, parameters, [(a, 1.0), (b, -1.0)], here))
    return CrossValidation(budgets, tuple(arms), tuple(differences))


def _compare(
    fits: Fits,
    flops: float,
    parameters: float,
    signed: list[tuple[str, float]],
    here: dict[str, dict[int, Run]],
) -> HeldOut:
    seeds = sorted(set.intersection(*(set(here[arm]) for arm, _ in signed)))
    values = np.zeros(len(seeds))
    predicted = 0.0
    draws = np.zeros(1)
    for arm, sign in signed:
        mine = [here[arm][seed] for seed in seeds]
        values = values + sign * np.array([run.value for run in mine])
        # Runs of one arm and budget see the same tokens, but for a step.
        law = fits.arms[arm].predict(
            parameters, np.mean([run.tokens for run in mine]), np.mean([run.unique for run in mine])
        )
        predicted += sign * float(law.mean[0])
        draws = draws + sign * (law.draws[:, 0] + fits.arms[arm].fresh_noise(len(seeds)))
    tail = (1 - fits.confidence) / 2
    low, high = (float(x) for x in np.quantile(draws, [tail, 1 - tail]))
    low = min(low, predicted)
    high = max(high, predicted)
    observed = float(values.mean())
    return HeldOut(
        name=" - ".join(arm for arm, _ in signed),
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
