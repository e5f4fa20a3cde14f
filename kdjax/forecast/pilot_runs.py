"""Pilot runs as a table, with the cells that pair runs of different arms."""

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
class PilotRun:
    """One finished pilot run and its value on one endpoint.

    Attributes:
        arm: name of the arm.
        seed: seed of the run; runs of one seed share start, data order and masks over arms and
            budgets.
        flops: budget in FLOPs. Runs of several arms are paired where budget and seed agree.
        parameters: non-embedding parameters of the student.
        tokens: tokens seen, repeats included.
        unique: different tokens among those seen; infinity where nothing was repeated.
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
    """The n runs of one arm as arrays.

    Attributes:
        parameters: `[n]`: parameters N.
        tokens: `[n]`: effective tokens D'.
        values: `[n]`: values of the endpoint.
        seed: `[n]`: index of each run's seed among the arm's own seeds.
        cell: `[n]`: index of each run's cell (budget, size, seed) in the study.
        study_seed: `[arm's seeds]`: index of each of the arm's seeds among the study's seeds.
    """

    parameters: Array
    tokens: Array
    values: Array
    seed: NDArray[np.intp]
    cell: NDArray[np.intp]
    study_seed: NDArray[np.intp]


@dataclass(frozen=True)
class PilotTable:
    """All pilot runs of a study.

    Attributes:
        arms: name of the arm -> its runs, in the order of their first runs.
        cell_seed: `[cells]`: index of every cell's seed among the study's seeds.
    """

    arms: dict[str, ArmRuns]
    cell_seed: NDArray[np.intp]


def tabulate(runs: Sequence[PilotRun]) -> PilotTable:
    """Sort runs by arm, and refuse what cannot be fitted.

    Raises:
        InputError: no runs; a number that is not finite or not above 0 where it must be; a run
            given twice.
    """
    if not runs:
        raise InputError("forecast: found no runs, expected the pilot runs of at least one arm")

    # Every number is one that a law can be fitted to, and every run is there once.
    known: set[tuple[str, float, float, int]] = set()
    for run in runs:
        where = f"forecast: arm {run.arm!r}, seed {run.seed}, budget {run.flops:g}"
        for name in ("flops", "parameters", "tokens", "unique"):
            number = getattr(run, name)
            if not number > 0 or (math.isinf(number) and name != "unique"):
                raise InputError(f"{where}: {name} is {number:g}, expected a finite number above 0")
        if not math.isfinite(run.value):
            raise InputError(f"{where}: value is {run.value}, expected a finite number")
        key = (run.arm, run.flops, run.parameters, run.seed)
        if key in known:
            raise InputError(
                f"{where}: found two runs, expected one for each arm, size, budget and seed"
            )
        known.add(key)

    # A cell is a budget, a size and a seed: runs of several arms in one cell are paired.
    seeds = sorted({run.seed for run in runs})
    cells = sorted({(run.flops, run.parameters, run.seed) for run in runs})
    cell_index = {cell: i for i, cell in enumerate(cells)}
    arms = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        arm_runs = [run for run in runs if run.arm == arm]
        arm_seeds = sorted({run.seed for run in arm_runs})
        tokens = [run.tokens for run in arm_runs]
        unique = [run.unique for run in arm_runs]
        arms[arm] = ArmRuns(
            parameters=np.array([run.parameters for run in arm_runs]),
            tokens=effective_tokens(tokens, unique),
            values=np.array([run.value for run in arm_runs]),
            seed=np.array([arm_seeds.index(run.seed) for run in arm_runs]),
            cell=np.array([cell_index[run.flops, run.parameters, run.seed] for run in arm_runs]),
            study_seed=np.array([seeds.index(seed) for seed in arm_seeds]),
        )
    return PilotTable(arms, np.array([seeds.index(seed) for _, _, seed in cells]))
