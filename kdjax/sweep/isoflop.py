"""IsoFLOP profiles: at one budget, how an endpoint depends on the student's size (Hoffmann et al.
2022, arXiv 2203.15556, their second approach)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.evaluation.statistics import interval
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
        the size at the vertex of a parabola in log parameters, the geometric mean over seeds. It
        is None with fewer than three sizes, or where a seed's parabola has its vertex outside the
        sizes tried, or none on the better side.
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
    """Fit a parabola for each seed; return the geometric mean of their best sizes.

    Returns:
        The mean with its interval; None where a seed shows no best size or lacks a size.
    """
    if len(sizes) < FEWEST:
        return None
    vertices = []
    for seed in sorted({row.seed for row in rows}):
        seed_rows = [row for row in rows if row.seed == seed]
        values = {r.parameters_without_embeddings: r.metrics[endpoint.name] for r in seed_rows}
        # A parabola through fewer sizes would not compare with those of other seeds.
        if values.keys() != set(sizes):
            return None
        vertex = _vertex(sizes, [values[size] for size in sizes], endpoint.better == "lower")
        if vertex is None:
            return None
        vertices.append(vertex)

    # Vertices are logarithms: their mean is the geometric mean of sizes.
    if len(vertices) < 2:
        return Optimum(math.exp(vertices[0]), None, None)
    mean, low, high = interval(vertices, confidence)
    return Optimum(math.exp(mean), math.exp(low), math.exp(high))


def _vertex(sizes: Sequence[int], values: Sequence[float], has_minimum: bool) -> float | None:
    """Fit a parabola; return the logarithm of the size at its vertex, None where no optimum.

    Args:
        sizes: parameters of the students without embeddings, ascending.
        values: value at each size.
        has_minimum: whether the best value is the lowest.
    """
    curvature, slope, _ = np.polyfit(np.log(sizes), values, 2)
    # A straight line has no vertex; that of a parabola turned the other way is the worst size.
    if curvature and (curvature > 0) == has_minimum:
        vertex = -slope / (2 * curvature)
        # Beyond the sizes tried the vertex would be extrapolated.
        if math.log(sizes[0]) <= vertex <= math.log(sizes[-1]):
            return float(vertex)
    return None
