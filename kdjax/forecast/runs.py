"""Pilot runs as a table: what one run was and what it reached, and the cells that pair runs of
different arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdjax.errors import InputError
from kdjax.forecast.laws import effective_tokens

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One finished pilot run and its value on one endpoint.

    Attributes:
        arm: name of the arm.
        seed: its seed; runs of one seed share start, data order and masks over arms and budgets.
        flops: the budget it was given, in FLOPs. Runs of several arms are paired where this number
            and the seed agree.
        parameters: non-embedding parameters of the student.
        tokens: tokens seen, repeats included.
        unique: different tokens among them; infinity where nothing was repeated.
        value: the endpoint, such as the held-out masked-language-model loss in nats, or an
            accuracy.
    """

    arm: str
    seed: int
    flops: float
    parameters: float
    tokens: float
    unique: float
    value: float


@dataclass(frozen=True)
class ArmRuns:
    """The runs of one arm as arrays of length n, with their places in the study.

    Attributes:
        parameters, tokens, values: `[n]`: N, effective tokens D', and the endpoint.
        seed: `[n]`: index among the arm's own seeds.
        cell: `[n]`: index of the cell (budget, size, seed) in the study.
        study_seed: `[arm's seeds]`: index of each of the arm's seeds among the study's.
    """

    parameters: Array
    tokens: Array
    values: Array
    seed: NDArray[np.intp]
    cell: NDArray[np.intp]
    study_seed: NDArray[np.intp]


@dataclass(frozen=True)
class Study:
    """All runs of a study.

    Attributes:
        arms: name -> runs, in the order first met.
        cell_seed: `[cells]`: seed index of every cell.
        seeds: number of different seeds.
    """

    arms: dict[str, ArmRuns]
    cell_seed: NDArray[np.intp]
    seeds: int


def tabulate(runs: Sequence[Run]) -> Study:
    """Sort runs into a study, and refuse what cannot be fitted.

    Raises:
        InputError: no runs; a number that is not finite or not above 0 where it must be; a run
            given twice.
    """
    if not runs:
        raise InputError("forecast: found no runs, expected the pilot runs of at least one arm")
    seen: set[tuple[str, float, float, int]] = set()
    for run in runs:
        where = f"forecast: arm {run.arm!r}, seed {run.seed}, budget {run.flops:g}"
        for name in ("flops", "parameters", "tokens", "unique"):
            number = getattr(run, name)
            if not number > 0 or (math.isinf(number) and name != "unique"):
                raise InputError(f"{where}: {name} is {number:g}, expected a finite number above 0")
        if not math.isfinite(run.value):
            raise InputError(f"{where}: value is {run.value}, expected a finite number")
        key = (run.arm, run.flops, run.parameters, run.seed)
        if key in seen:
            raise InputError(
                f"{where}: found two runs, expected one for each arm, size, budget and seed"
            )
        seen.add(key)
    seeds = sorted({run.seed for run in runs})
    cells = sorted({(run.flops, run.parameters, run.seed) for run in runs})
    place = {cell: i for i, cell in enumerate(cells)}
    arms = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        mine = [run for run in runs if run.arm == arm]
        own = sorted({run.seed for run in mine})
        arms[arm] = ArmRuns(
            parameters=np.array([run.parameters for run in mine]),
            tokens=effective_tokens([run.tokens for run in mine], [run.unique for run in mine]),
            values=np.array([run.value for run in mine]),
            seed=np.array([own.index(run.seed) for run in mine]),
            cell=np.array([place[run.flops, run.parameters, run.seed] for run in mine]),
            study_seed=np.array([seeds.index(seed) for seed in own]),
        )
    return Study(arms, np.array([seeds.index(seed) for _, _, seed in cells]), len(seeds))
