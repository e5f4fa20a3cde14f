"""Studies boiled down: mean and spread over seeds, and paired differences between arms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kdjax.results.schema import Endpoint, Results

Outcome = Literal["beats", "loses", "ties", "unclear"]


@dataclass(frozen=True)
class Spread:
    """Values over seeds.

    Attributes:
        mean: their mean.
        sd: sample standard deviation (n - 1 in its denominator); None for a single value.
        n: how many there are.
    """

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """One arm against another on one endpoint, read from the first arm's side.

    Attributes:
        mean: mean over shared seeds of (arm's value - other's), in the endpoint's unit; None
            without a shared seed.
        low, high: ends of its confidence interval; None with fewer than two shared seeds.
        n: number of shared seeds.
        outcome: what the verdict says about the first arm.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    outcome: Outcome


def spread(values: Iterable[float]) -> Spread | None:
    """Mean and standard deviation; None of no values."""
    found = list(values)
    if not found:
        return None
    mean = math.fsum(found) / len(found)
    if len(found) == 1:
        return Spread(mean, None, 1)
    return Spread(
        mean, math.sqrt(math.fsum((x - mean) ** 2 for x in found) / (len(found) - 1)), len(found)
    )


def by_seed(results: Results, arm: str, endpoint: Endpoint) -> dict[int, float]:
    """Seed -> an arm's value; empty where it means nothing for the arm (an MLM loss without a
    trained head)."""
    if arm not in endpoint.arms:
        return {}
    return {
        run.seed: run.metrics[endpoint.name]
        for run in results.runs
        if run.arm == arm and endpoint.name in run.metrics
    }


def references(results: Results) -> dict[str, dict[str, Spread]]:
    """Reference model -> endpoint -> spread over seeds (the teacher has one value, an untrained
    start one a seed)."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in results.references:
        of_model = values.setdefault(row.name, {})
        for endpoint, value in row.metrics.items():
            of_model.setdefault(endpoint, []).append(value)
    return {
        name: {
            endpoint: found for endpoint, of in metrics.items() if (found := spread(of)) is not None
        }
        for name, metrics in values.items()
    }


def task_of(endpoint: Endpoint) -> str:
    """The endpoint's task or text: `topic` of `probe.topic`; empty for a loss on the study's own
    text."""
    return str(endpoint.name).partition(".")[2]


def has_teacher(results: Results, arm: str) -> bool:
    """Whether an arm looks at a teacher."""
    return results.arms[arm].teacher is not None


def difference(results: Results, endpoint: Endpoint, arm: str, other: str) -> Difference | None:
    """The verdict on two arms, turned so that it reads from `arm`'s side; None if the two were not
    compared."""
    for v in results.verdicts:
        if v.endpoint != endpoint.name or {v.a, v.b} != {arm, other}:
            continue
        first = v.a == arm
        outcome: Outcome = "unclear"
        if v.verdict == "TIES":
            outcome = "ties"
        elif v.verdict == "BEATS":
            outcome = "beats" if first else "loses"
        if first:
            return Difference(v.difference, v.low, v.high, v.n, outcome)
        mean, low, high = (None if x is None else -x for x in (v.difference, v.high, v.low))
        return Difference(mean, low, high, v.n, outcome)
    return None
