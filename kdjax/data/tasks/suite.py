"""Tasks of a suite with their rows, and what a suite scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdjax.config.suites import LEFT_OUT, SuiteTask, suite_tasks
from kdjax.data.tasks.raw import RawTask, RowSource, SplitName


def raw_task(task: SuiteTask, sources: tuple[RowSource, ...]) -> RawTask:
    """Return a task with its rows."""
    return RawTask(
        task.name,
        task.classes,
        task.metrics,
        len(task.columns) == 2,
        sources,
        task.bounds,
        from_suite=True,
    )


def splits_of(task: SuiteTask) -> tuple[tuple[SplitName, str, str], ...]:
    """Return the splits of a task as (kind, result, what its name ends in), the training split
    first."""
    splits: list[tuple[SplitName, str, str]] = [("train", task.name, "")]
    splits += [("dev", result, ending) for result, ending in task.results]
    splits += [("test", result, ending) for result, ending in task.results]
    return tuple(splits)


def suite_mean(suite: str, scores: Mapping[str, float]) -> float | None:
    """Compute a suite's score: the mean over its tasks, without WNLI.

    GLUE's MNLI counts once, as the mean of its matched and mismatched score (arXiv 1804.07461).

    Args:
        suite: `glue` or `babylm`.
        scores: name of a result -> score, the mean of its metrics; results of other tasks, too.

    Returns:
        The mean; None where the score of a task is missing.
    """
    values = []
    for task in suite_tasks(suite):
        if task.name in LEFT_OUT[suite]:
            continue
        results = [result for result, _ in task.results]
        if not scores.keys() >= set(results):
            return None
        values.append(np.mean([scores[result] for result in results]))
    return float(np.mean(values))
