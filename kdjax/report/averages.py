"""Means of runs: of each arm, of figures that may not be known, and such figures as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from kdjax.results.runs import RunResult
from kdjax.results.study import Results


def runs(results: Results, arm: str) -> list[RunResult]:
    """Return the runs of an arm."""
    return [run for run in results.runs if run.arm == arm]


def averages(results: Results, figure: Callable[[RunResult], float]) -> dict[str, float]:
    """Compute the mean of a figure over the runs of each arm.

    Args:
        results: the content of results.json.
        figure: takes a run and returns its figure.

    Returns:
        Arm -> mean.
    """
    return {arm: mean(map(figure, runs(results, arm))) for arm in results.arms}


def mean(values: Iterable[float]) -> float:
    """Compute the mean of one or more values."""
    amounts = list(values)
    return math.fsum(amounts) / len(amounts)


def mean_if_known(values: Iterable[float | None]) -> float | None:
    """Compute the mean of some values; None where one of them is not known."""
    # A mean of the others would pass for one of all.
    amounts = []
    for value in values:
        if value is None:
            return None
        amounts.append(value)
    return mean(amounts)


def averages_of(results: Results, field: str, key: str) -> dict[str, float]:
    """Return the mean of one entry of a field over the runs of each arm; 0 where it is missing.

    Args:
        results: the content of results.json.
        field: field of a run that maps keys to numbers.
        key: key of the entry.
    """
    return averages(results, lambda run: getattr(run, field).get(key, 0.0))


def text_or_dash(show: Callable[[float], str], value: float | None) -> str:
    """Return a value as text; a dash where it is not known."""
    return "–" if value is None else show(value)
