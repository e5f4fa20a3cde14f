"""Studies boiled down: mean and spread over seeds, and paired differences between arms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kdjax.config.suites import result_names
from kdjax.evaluation.statistics import OTHER_SIDE, ArmVerdict, Family
from kdjax.report import numbers
from kdjax.results.runs import diverged_arms
from kdjax.results.study import Results
from kdjax.results.verdicts import Endpoint, MeasuredEndpoint


@dataclass(frozen=True)
class Spread:
    """Mean and spread of values over seeds.

    Attributes:
        mean: mean of the values.
        sd: sample standard deviation (n - 1 in its denominator); None for a single value.
        n: number of values.
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
        low, high: ends of the mean's confidence interval; None with fewer than two shared seeds.
        n: number of shared seeds.
        outcome: what the verdict says of the first arm.
        family: family that it was tested in; None in results of earlier versions.
        p_adjusted: p-value, adjusted for both families; None where it was not tested.
        detectable, seeds_needed: see `kdjax.evaluation.statistics.PairedOutcome`.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    outcome: ArmVerdict
    family: Family | None = None
    p_adjusted: float | None = None
    detectable: float | None = None
    seeds_needed: int | None = None

    def turned(self) -> Difference:
        """Return the same difference, read from the other arm's side."""
        return replace(
            self,
            mean=_negated(self.mean),
            low=_negated(self.high),
            high=_negated(self.low),
            outcome=OTHER_SIDE[self.outcome],
        )


def spread(values: Iterable[float]) -> Spread | None:
    """Compute mean and standard deviation; None of no values."""
    sample = list(values)
    n = len(sample)
    if not sample:
        return None
    mean = math.fsum(sample) / n
    if n == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in sample) / (n - 1)), n)


def text(values: Spread | None) -> str:
    """Return values over seeds as text: `0.631 ± 0.012`; a dash where there are none."""
    return "–" if values is None else numbers.spread(values.mean, values.sd)


def values_by_seed(results: Results, arm: str, endpoint: Endpoint) -> dict[int, float]:
    """Return seed -> the value of an endpoint that an arm's run reached.

    Empty where the endpoint means nothing for the arm (an MLM loss without a trained head), and
    where one of its runs has diverged.

    Args:
        results: the content of results.json.
        arm: name of the arm.
        endpoint: the endpoint.
    """
    if arm not in endpoint.arms or arm in diverged_arms(results.runs):
        return {}
    return {
        run.seed: run.metrics[endpoint.name]
        for run in results.runs
        if run.arm == arm and endpoint.name in run.metrics
    }


def main_endpoints(results: Results) -> list[MeasuredEndpoint]:
    """Return the endpoints that sentences and the first table are of.

    A suite whose mean is measured gives its mean alone; its tasks have tables of their own.
    """
    evaluation = results.config["evaluation"]
    suite = evaluation.get("suite", "")
    names = {endpoint.name for endpoint in results.endpoints}
    in_own_table: set[str] = set()
    for protocol in evaluation.get("protocols", ()):
        if f"{protocol}.{suite}" in names:
            in_own_table |= {f"{protocol}.{result}" for result in result_names(suite, ())}
    return [endpoint for endpoint in results.endpoints if endpoint.name not in in_own_table]


def reference_spreads(results: Results) -> dict[str, dict[str, Spread]]:
    """Return each reference model's spread over seeds by endpoint; a teacher has one value."""
    # A reference has a row for each seed it was measured under.
    values: dict[str, dict[str, list[float]]] = {}
    for row in results.references:
        metrics = values.setdefault(row.name, {})
        for endpoint, value in row.metrics.items():
            metrics.setdefault(endpoint, []).append(value)
    spreads: dict[str, dict[str, Spread]] = {name: {} for name in values}
    for name, metrics in values.items():
        for endpoint, sample in metrics.items():
            if over_seeds := spread(sample):
                spreads[name][endpoint] = over_seeds
    return spreads


def task_of(endpoint: Endpoint) -> str:
    """Return an endpoint's task or text; empty for a loss on the study's own text."""
    return str(endpoint.name).partition(".")[2]


def has_teacher(results: Results, arm: str) -> bool:
    """Return whether an arm looks at a teacher."""
    return results.arms[arm].teacher is not None


def difference(results: Results, endpoint: Endpoint, arm: str, other: str) -> Difference | None:
    """Return the verdict on two arms, read from `arm`'s side; None if they were not compared."""
    for verdict in results.verdicts:
        if verdict.endpoint != endpoint.name or {verdict.a, verdict.b} != {arm, other}:
            continue
        read_from_a = Difference(
            verdict.difference,
            verdict.low,
            verdict.high,
            verdict.n,
            verdict.verdict,
            verdict.family,
            verdict.p_adjusted,
            verdict.detectable,
            verdict.seeds_needed,
        )
        return read_from_a if verdict.a == arm else read_from_a.turned()
    return None


def _negated(value: float | None) -> float | None:
    """Return a number with the other sign, if there is one."""
    return None if value is None else -value
