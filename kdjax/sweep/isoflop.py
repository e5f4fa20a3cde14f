"""IsoFLOP profiles: at one budget, how an endpoint depends on the student's size (Hoffmann et al.
2022, arXiv 2203.15556, their second approach)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.config import KINDS
from kdjax.evaluation.statistics import interval
from kdjax.report import summary

SIZE = "student."
"""Swept settings that begin so make the sizes of a profile."""


def profiles(
    rows: Sequence[Mapping[str, Any]], endpoints: Sequence[Mapping[str, Any]], confidence: float
) -> list[dict[str, Any]]:
    """The profiles of a sweep; none where it has students of one size only.

    Args:
        rows: its runs, as sweep.json has them.
        endpoints: of its studies.
        confidence: of the optima's intervals.

    Returns: For each endpoint, arm, budget and combination of what else was swept (`settings`):
        `points`, by size (`parameters` without embeddings, mean, sd, n), and the `optimum` from
        three sizes on: the size at the vertex of a parabola in log parameters, the geometric mean
        over seeds with its interval. The optimum is None where a seed's parabola has its vertex
        outside the sizes tried, or none on the better side.
    """
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        other = {
            name: value for name, value in row["settings"].items() if not _is_size_or_budget(name)
        }
        found.setdefault((row["arm"], row["budget"], repr(other)), []).append(
            {**row, "other": other}
        )
    made = []
    for endpoint in endpoints:
        for (arm, budget, _), runs in found.items():
            told = [run for run in runs if endpoint["name"] in run["metrics"]]
            sizes = sorted({run["parameters_without_embeddings"] for run in told})
            if arm not in endpoint["arms"] or len(sizes) < 2:
                continue
            made.append(
                {
                    "endpoint": endpoint["name"],
                    "arm": arm,
                    "budget": budget,
                    "settings": told[0]["other"],
                    "points": [_point(told, size, endpoint["name"]) for size in sizes],
                    "optimum": _optimum(told, sizes, endpoint, confidence),
                }
            )
    return made


def _is_size_or_budget(name: str) -> bool:
    return name.startswith(SIZE) or name in {f"budget.{kind}" for kind in KINDS}


def _point(runs: Sequence[Mapping[str, Any]], size: int, endpoint: str) -> dict[str, Any]:
    spread = summary.spread(
        run["metrics"][endpoint] for run in runs if run["parameters_without_embeddings"] == size
    )
    return {"parameters": size, **vars(spread)}


def _optimum(
    runs: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    endpoint: Mapping[str, Any],
    confidence: float,
) -> dict[str, float | None] | None:
    vertices = []
    for seed in sorted({run["seed"] for run in runs}):
        own = {
            r["parameters_without_embeddings"]: r["metrics"][endpoint["name"]]
            for r in runs
            if r["seed"] == seed
        }
        if own.keys() != set(sizes) or len(sizes) < 3:
            return None
        curvature, slope, _ = np.polyfit(np.log(sizes), [own[size] for size in sizes], 2)
        vertex = -slope / (2 * curvature) if curvature else math.inf
        right_way = (curvature > 0) == (endpoint["better"] == "lower")
        if not right_way or not math.log(sizes[0]) <= vertex <= math.log(sizes[-1]):
            return None
        vertices.append(vertex)
    if len(vertices) < 2:
        return {"parameters": math.exp(vertices[0]), "low": None, "high": None}
    mean, low, high = (math.exp(x) for x in interval(vertices, confidence))
    return {"parameters": mean, "low": low, "high": high}
