"""Which rows of a task a run's model had right, where that is stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdjax.evaluation.finetuning.results import right_rows
from kdjax.evaluation.metric import METRICS
from kdjax.results.runs import RunResult, diverged_arms, finetuned_task, probed_layers
from kdjax.results.verdicts import MeasuredEndpoint

Array = NDArray[np.float64]


def right_by_row(run: RunResult, endpoint: MeasuredEndpoint) -> Array | None:
    """Return the share of fine-tunings that had each row right, `[rows]`.

    Args:
        run: row of a run.
        endpoint: an endpoint; only of an accuracy on a task rows are right or wrong.

    Returns:
        None where the endpoint is no accuracy, or the rows were not stored.
    """
    if endpoint.unit != METRICS["accuracy"].label:
        return None
    result = endpoint.name.partition(".")[2]
    encoded: list[str] = []
    probed = probed_layers(run, endpoint.name)
    if probed is not None and probed.rows is not None:
        encoded.append(probed.rows)
    task = finetuned_task(run, endpoint.name)
    if task is not None:
        for trial in task.chosen_trials:
            if not trial.rows:
                return None
            encoded.append(trial.rows[result])
    if not encoded:
        return None
    right = [right_rows(outcomes, endpoint.rows) for outcomes in encoded]
    return np.asarray(np.mean(right, axis=0, dtype=np.float64))


def row_differences(
    endpoint: MeasuredEndpoint, runs: Sequence[RunResult], arms: tuple[str, str]
) -> Array | None:
    """Return the first arm's share of right answers to each row less the second's, `[seeds, rows]`.

    Args:
        endpoint: an endpoint.
        runs: runs of the study.
        arms: names of the two arms.

    Returns:
        None with fewer than two seeds that both have, or where rows were not stored.
    """
    if diverged_arms(runs) & set(arms):
        return None
    by_arm: list[dict[int, Array]] = []
    for arm in arms:
        by_seed = {}
        for run in runs:
            right = right_by_row(run, endpoint) if run.arm == arm else None
            if right is not None:
                by_seed[run.seed] = right
        by_arm.append(by_seed)
    shared = sorted(by_arm[0].keys() & by_arm[1].keys())
    if len(shared) < 2 or endpoint.rows < 2:
        return None
    return np.stack([by_arm[0][seed] - by_arm[1][seed] for seed in shared])
