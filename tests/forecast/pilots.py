"""Pilot runs of small made-up studies, as a user would hand them in."""

from __future__ import annotations

import math

import numpy as np

from kdjax.forecast import Point, Run

FLOPS = np.geomspace(1e13, 3e14, 4)
SIZE = 1e6
PRICE = {"scratch": 6e6, "logit": 9e6}  # FLOPs of one token
LAW = {"scratch": (2.0, 60.0, 0.25), "logit": (2.6, 900.0, 0.45)}  # E, K, k


def loss(arm, flops, law=None):
    e, amplitude, k = (law or LAW)[arm]
    return e + amplitude * (np.asarray(flops) / PRICE[arm]) ** -k


def study(
    rng, *, noise=0.01, shift=0.01, seeds=3, flops=FLOPS, law=None, arms=("scratch", "logit")
):
    """Losses of every arm, budget and seed, with the seed's shift common to the arms."""
    runs = []
    for seed in range(seeds):
        moved = shift * rng.normal()
        for budget in flops:
            for arm in arms:
                value = float(loss(arm, budget, law)) + moved + noise * rng.normal()
                runs.append(
                    Run(arm, seed, float(budget), SIZE, budget / PRICE[arm], math.inf, value)
                )
    return runs


def spend(arm, flops):
    return Point(SIZE, flops / PRICE[arm])
