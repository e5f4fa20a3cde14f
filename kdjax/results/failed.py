"""Which arms failed to learn a task at all; two of them cannot be told apart on it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from kdjax.config.suites import LEFT_OUT, suite_tasks
from kdjax.evaluation.finetuning.results import FinetunedTask
from kdjax.results.runs import ReferenceModel, RunResult, diverged_arms, finetuned_task
from kdjax.results.verdicts import Endpoint, PairVerdict


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


def after_failures(
    verdicts: Sequence[PairVerdict], failed: Collection[str]
) -> tuple[PairVerdict, ...]:
    """Make verdicts on two arms that both failed INCONCLUSIVE: their scores are a constant's.

    Args:
        verdicts: verdicts on one endpoint.
        failed: arms of which every fine-tuning on it failed (`failed_arms`).
    """
    decided = list(verdicts)
    for number, verdict in enumerate(verdicts):
        if verdict.a in failed and verdict.b in failed:
            decided[number] = replace(verdict, verdict="INCONCLUSIVE")
    return tuple(decided)


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
