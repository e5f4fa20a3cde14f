"""Which arms have not learnt a task at all; two of them are not told apart on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from kdjax.config.suites import LEFT_OUT, suite_tasks
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.results.runs import ReferenceModel, RunResult, diverged_arms, finetuned_task
from kdjax.results.verdicts import Endpoint, MeasuredEndpoint

ONE_SIDED = 1.645
"""Quantile 0.95 of the standard normal."""


def failed_arms(endpoint: Endpoint, runs: Sequence[RunResult]) -> frozenset[str]:
    """Return the arms of which every scored trial on an endpoint failed, under every seed.

    A trial that failed scores no more on the selection rows than a constant does. Its score is the
    constant's or near it, so two such arms differ by which constant they say, or not at all.

    Args:
        endpoint: an endpoint; on one without fine-tuning no arm fails.
        runs: runs of the study. Arms with a run that diverged have no values, and are left out.
    """
    diverged = diverged_arms(runs)
    failed = set()
    for arm in endpoint.arms:
        arm_runs = [run for run in runs if run.arm == arm]
        if arm_runs and arm not in diverged and _all_failed(endpoint.name, arm_runs):
            failed.add(arm)
    return frozenset(failed)


def arms_at_baseline(endpoint: MeasuredEndpoint, runs: Sequence[RunResult]) -> frozenset[str]:
    """Return the arms that an endpoint's rows cannot show to be better than a constant.

    Their mean over seeds is not above the score of the best constant answer, or of chance, by as
    much as the rows' own error allows: a one-sided test at 5%, with the rows' standard error at
    that score.

    Args:
        endpoint: an endpoint; a loss has no such score, and no such arms.
        runs: runs of the study. Arms with a run that diverged have no values, and are left out.
    """
    if endpoint.baseline is None:
        return frozenset()
    limit = endpoint.baseline + ONE_SIDED * _row_error(endpoint)
    diverged = diverged_arms(runs)
    arms = set()
    for arm in endpoint.arms:
        arm_runs = [run for run in runs if run.arm == arm and endpoint.name in run.metrics]
        if not arm_runs or arm in diverged:
            continue
        if fmean(run.metrics[endpoint.name] for run in arm_runs) <= limit:
            arms.add(arm)
    return frozenset(arms)


def unlearnt_arms(endpoint: MeasuredEndpoint, runs: Sequence[RunResult]) -> frozenset[str]:
    """Return the arms that have learnt nothing of an endpoint, two of which are not compared.

    Args:
        endpoint: an endpoint.
        runs: runs of the study.
    """
    return failed_arms(endpoint, runs) | arms_at_baseline(endpoint, runs)


def _row_error(endpoint: MeasuredEndpoint) -> float:
    """Return the standard error, over rows, of a constant's score on an endpoint.

    Of an accuracy it is the binomial one; of a correlation that of two unrelated lists. Of a
    suite's mean it is that of one task with as many rows, which is less than it has.
    """
    assert endpoint.baseline is not None  # the caller has checked
    variance = endpoint.baseline * (1 - endpoint.baseline)
    if endpoint.scale == "correlation":
        variance = 1 - endpoint.baseline**2
    return math.sqrt(max(variance, 0.0) / max(endpoint.rows, 1))


def _all_failed(endpoint: str, runs: Iterable[RunResult]) -> bool:
    """Return whether every scored trial of some runs failed."""
    for run in runs:
        tasks = finetuned_tasks(endpoint, run)
        if not tasks or any(task.failed < len(task.chosen_trials) for task in tasks):
            return False
    return True


def finetuned_tasks(endpoint: str, row: RunResult | ReferenceModel) -> list[FinetunedTask]:
    """Return a model's fine-tuning records on an endpoint's task, or on all tasks of a suite's
    mean.

    Args:
        endpoint: name of the endpoint.
        row: row of a run, or of a model for reference.
    """
    task = finetuned_task(row, endpoint)
    if task is not None:
        return [task]
    protocol, _, suite = endpoint.partition(".")
    tasks = []
    for counted in suite_tasks(suite):
        task = finetuned_task(row, f"{protocol}.{counted.name}")
        if task is not None and counted.name not in LEFT_OUT[suite]:
            tasks.append(task)
    return tasks
