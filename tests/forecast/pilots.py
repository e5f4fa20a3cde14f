"""Pilot runs of small made-up studies, as a user would hand them in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from kdjax.forecast import PilotRun, Point

FLOPS = np.geomspace(1e13, 3e14, 4)
SIZE = 1e6
PRICE = {"scratch": 6e6, "logit": 9e6}  # FLOPs of one token
Law = Mapping[str, tuple[float, float, float]]
LAW: Law = {"scratch": (2.0, 60.0, 0.25), "logit": (2.6, 900.0, 0.45)}  # E, K, k


def loss(arm: str, flops: ArrayLike, law: Law = LAW) -> np.ndarray:
    """Compute the loss that an arm reaches at some budgets."""
    e, amplitude, k = law[arm]
    return e + amplitude * (np.asarray(flops) / PRICE[arm]) ** -k


def study(
    rng: np.random.Generator,
    *,
    noise: float = 0.01,
    shift: float = 0.01,
    seeds: int = 3,
    flops: Sequence[float] | np.ndarray = FLOPS,
    law: Law = LAW,
    arms: Sequence[str] = ("scratch", "logit"),
) -> list[PilotRun]:
    """Draw runs of every arm, budget and seed; a seed's shift is common to the arms."""
    runs = []
    for seed in range(seeds):
        moved = shift * rng.normal()
        for budget in flops:
            for arm in arms:
                value = float(loss(arm, budget, law)) + moved + noise * rng.normal()
                runs.append(
                    PilotRun(arm, seed, float(budget), SIZE, budget / PRICE[arm], math.inf, value)
                )
    return runs


def spend(arm: str, flops: ArrayLike) -> Point:
    """Return what an arm buys with some budgets."""
    return Point(SIZE, np.asarray(flops) / PRICE[arm])
