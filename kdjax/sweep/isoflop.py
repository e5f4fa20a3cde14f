"""IsoFLOP profiles: at one budget, how an endpoint depends on the student's size (Hoffmann et al.
2022, arXiv 2203.15556, their second approach)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdjax.report import summary
from kdjax.results.verdicts import Endpoint
from kdjax.sweep.cells import BUDGETS
from kdjax.sweep.schema import Optimum, Profile, SizePoint, SweepRow

SIZE = "student."
"""Beginning of the swept settings that make a profile's sizes."""
FEWEST = 3
"""Fewest sizes through which a parabola is fitted."""


def profiles(
    rows: Sequence[SweepRow], endpoints: Sequence[Endpoint], confidence: float
) -> list[Profile]:
    """Fit the profiles of a sweep; none where it has students of one size only.

    Args:
        rows: runs of the sweep.
        endpoints: endpoints of its studies.
        confidence: confidence of the optima's intervals.

    Returns:
        One for each endpoint, arm, budget and combination of what else was swept. The optimum is
        the size at the vertex of one parabola in log parameters, fitted to all seeds together. It
        is None with fewer than three sizes, or where the parabola has its vertex outside the sizes
        tried, or none on the better side.
    """
    # Runs that differ in size and seed alone belong to one profile.
    groups: dict[tuple[str, float, str], list[SweepRow]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.budget, repr(_other_settings(row))), []).append(row)
    profiles = []
    for endpoint in endpoints:
        for (arm, budget, _), group in groups.items():
            measured = [row for row in group if endpoint.name in row.metrics]
            sizes = sorted({row.parameters_without_embeddings for row in measured})
            if arm not in endpoint.arms or len(sizes) < 2:
                continue
            points = tuple(_point(measured, size, endpoint.name) for size in sizes)
            optimum = _optimum(measured, sizes, endpoint, confidence)
            settings = _other_settings(measured[0])
            profiles.append(Profile(endpoint.name, arm, budget, settings, points, optimum))
    return profiles


def _other_settings(row: SweepRow) -> dict[str, Any]:
    """Return a run's swept settings other than size and budget."""
    settings = row.settings.items()
    return {n: value for n, value in settings if n not in BUDGETS and not n.startswith(SIZE)}


def _point(rows: Sequence[SweepRow], size: int, endpoint: str) -> SizePoint:
    """Compute an endpoint's spread over seeds at a size that some run has."""
    of_size = (row for row in rows if row.parameters_without_embeddings == size)
    spread = summary.spread(row.metrics[endpoint] for row in of_size)
    assert spread is not None
    return SizePoint(size, spread.mean, spread.sd, spread.n)


def _optimum(
    rows: Sequence[SweepRow], sizes: Sequence[int], endpoint: Endpoint, confidence: float
) -> Optimum | None:
    """Fit one parabola to all seeds, each with a height of its own; return its best size.

    Returns:
        The size at the vertex with its interval, an end of which is None where it lies beyond the
        sizes tried; None where there is no best size between them.
    """
    if len(sizes) < FEWEST:
        return None
    # Logarithms of size, measured from their middle: the columns are then nearly independent.
    logs = np.log([row.parameters_without_embeddings for row in rows])
    middle = float(np.log(sizes).mean())
    x = logs - middle
    seeds = sorted({row.seed for row in rows})
    heights = [[float(row.seed == seed) for seed in seeds] for row in rows]
    design = np.column_stack([x, x**2, np.array(heights)])
    values = np.array([row.metrics[endpoint.name] for row in rows])
    coefficients, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    slope, curvature = coefficients[:2].tolist()

    # A straight line has no vertex; that of a parabola turned the other way is the worst size.
    if rank < design.shape[1] or (curvature > 0) != (endpoint.better == "lower"):
        return None
    vertex = -slope / (2 * curvature)
    # Beyond the sizes tried the vertex would be extrapolated.
    span = (math.log(sizes[0]) - middle, math.log(sizes[-1]) - middle)
    if not span[0] <= vertex <= span[1]:
        return None
    df = len(rows) - design.shape[1]
    low = None
    high = None
    if df > 0:
        residuals = values - design @ coefficients
        covariance = residuals @ residuals / df * np.linalg.inv(design.T @ design)[:2, :2]
        quantile = float(stats.t.ppf((1 + confidence) / 2, df))
        low, high = _vertex_interval((slope, curvature), covariance, quantile, span)
    return Optimum(
        math.exp(vertex + middle),
        None if low is None else math.exp(low + middle),
        None if high is None else math.exp(high + middle),
    )


def _vertex_interval(
    parabola: tuple[float, float],
    covariance: NDArray[np.float64],
    quantile: float,
    span: tuple[float, float],
) -> tuple[float | None, float | None]:
    """Return the interval of a parabola's vertex, by inverting a t-test (Fieller's theorem).

    A place v belongs to it where slope + 2 * curvature * v cannot be told from 0.

    Args:
        parabola: slope at 0, and curvature.
        covariance: `[2, 2]`: theirs.
        quantile: quantile of Student's t.
        span: smallest and largest place looked at.

    Returns:
        low, high: ends of the interval; None where it goes on to the end of the span.
    """
    slope, curvature = parabola
    # slope + 2 v curvature is 0 to within the quantile of its error: a quadratic in v below 0.
    square = 4 * (curvature**2 - quantile**2 * covariance[1, 1])
    linear = 4 * (slope * curvature - quantile**2 * covariance[0, 1])
    constant = slope**2 - quantile**2 * covariance[0, 0]
    # A curvature that cannot be told from 0 leaves the vertex anywhere.
    if square <= 0:
        return None, None
    # The fitted vertex is inside, so that there are two roots.
    half = math.sqrt(max(linear**2 - 4 * square * constant, 0.0))
    low = (-linear - half) / (2 * square)
    high = (-linear + half) / (2 * square)
    return (low if low > span[0] else None), (high if high < span[1] else None)
